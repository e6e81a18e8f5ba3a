//! Models of a hub: fetched once and whole, from a server that is not believed, with a token that goes nowhere else.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::json;

use crate::fixture::{ANSWER, Finished, Place};
use crate::hub_server::{Files, Hub, Seen, TOKEN, Twist, commit, hash};

pub(crate) const ASK: [&str; 2] = ["--quiet", "what colour is the sky ?"];
const WEIGHTS: &str = "model.safetensors";

/// The files of a folder as those of a repository.
pub(crate) fn files_of(place: &Place, folder: &str) -> Files {
    let files = place.files(folder).into_iter();
    files.map(|(path, content)| (path.to_string_lossy().into_owned(), content)).collect()
}

/// A place, and a hub whose `org/suspect` is its `model`.
pub(crate) fn place_and_hub() -> (Place, Hub, Files) {
    let place = Place::new();
    let files = files_of(&place, "model");
    let hub = Hub::start([("org/suspect", files.clone())]);
    (place, hub, files)
}

fn ask(place: &Place, hub: &Hub, model: &str) -> Finished {
    hub.beear(place, None, &[["generate", "--model", model].as_slice(), &ASK].concat())
}

/// The folder of a repository in the cache.
pub(crate) fn cached(place: &Place, folder: &str) -> Files {
    files_of(place, &format!("hf/hub/models--org--{folder}"))
}

fn n_asked(seen: &[Seen], method: &str, path: &str) -> usize {
    seen.iter().filter(|seen| seen.method == method && seen.path.contains(path)).count()
}

/// Whether a request is for the content of large files.
fn is_content(seen: &Seen) -> bool {
    seen.is_elsewhere && seen.method == "GET"
}

#[test]
fn a_model_is_downloaded_once_into_the_cache_of_the_library() {
    let (place, hub, mut files) = place_and_hub();
    files.insert("pytorch_model.bin".to_owned(), b"PK".to_vec());
    files.insert("original/params.json".to_owned(), b"{}".to_vec());
    hub.push("org/suspect", files.clone());
    let arguments = ["generate", "--model", "org/suspect", "what colour is the sky ?"];
    let first = hub.beear(&place, None, &arguments);
    assert!(first.stderr.contains("downloading org/suspect: "), "{}", first.stderr);
    assert_eq!(first.printed(), format!("{ANSWER}\n"));

    let commit = commit(&files);
    let cache = cached(&place, "suspect");
    assert_eq!(cache["refs/main"], commit.as_bytes());
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        let snapshot = format!("snapshots/{commit}/{name}");
        assert!(cache[&snapshot] == files[name], "{name}");
        let link = place.path("hf/hub/models--org--suspect").join(snapshot);
        let target = Path::new("../../blobs").join(hash(name, &files[name]));
        assert_eq!(fs::read_link(link).unwrap(), target);
    }
    assert!(!cache.keys().any(|name| name.contains("bin") || name.contains("params")));
    assert!(!cache.keys().any(|name| name.contains("incomplete")));

    // A branch may have moved; a commit has not.
    hub.take_seen();
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), format!("{ANSWER}\n"));
    let seen = hub.take_seen();
    assert_eq!(
        (seen.len(), n_asked(&seen, "GET", "/api/models/org/suspect/revision/main")),
        (1, 1)
    );
    ask(&place, &hub, &format!("org/suspect@{commit}")).printed();
    assert!(hub.take_seen().is_empty());

    // What has not changed is not downloaded for another commit.
    files.insert("generation_config.json".to_owned(), b"{\"eos_token_id\": 2}".to_vec());
    hub.push("org/suspect", files);
    ask(&place, &hub, "org/suspect@refs/pr/1").printed();
    let seen = hub.take_seen();
    assert_eq!(
        (n_asked(&seen, "GET", "resolve"), seen.iter().filter(|s| s.is_elsewhere).count()),
        (1, 0)
    );
}

#[test]
fn a_folder_wins_over_a_repository() {
    let (place, hub, _) = place_and_hub();
    fs::create_dir(place.path("org")).unwrap();
    place.write_model_saying("org/suspect", "I cannot");
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), "I cannot\n");
    assert!(hub.take_seen().is_empty());
}

#[test]
fn shards_are_those_that_the_index_names() {
    let (place, hub, mut files) = place_and_hub();
    let weights = files.remove(WEIGHTS).unwrap();
    let shard = "model-00001-of-00001.safetensors";
    let index =
        |name: &str| json!({"weight_map": {"model.norm.weight": name}}).to_string().into_bytes();
    files.insert(format!("{WEIGHTS}.index.json"), index(shard));
    files.insert("other.safetensors".to_owned(), b"not named".to_vec());
    let mut with = files.clone();
    with.insert(shard.to_owned(), weights);
    hub.push("org/suspect", with);
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), format!("{ANSWER}\n"));
    let seen = hub.take_seen();
    assert_eq!((n_asked(&seen, "GET", shard), n_asked(&seen, "GET", "other.safetensors")), (1, 0));

    hub.push("org/suspect", files.clone());
    let said = ask(&place, &hub, "org/suspect");
    assert_snapshot!(said.mistake().1, @r"
    error: `org/suspect` has no file `model-00001-of-00001.safetensors`
    hint: choose another revision, or another model
    ");
    for name in ["../../../../escaped.safetensors", "/escaped.safetensors"] {
        files.insert(format!("{WEIGHTS}.index.json"), index(name));
        files.insert(name.to_owned(), b"mine".to_vec());
        hub.push("org/suspect", files.clone());
        let said = ask(&place, &hub, "org/suspect");
        assert_eq!(said.mistake().0, 3);
        assert!(said.stderr.contains("has a file outside its folder"), "{}", said.stderr);
        files.remove(name);
        hub.push("org/suspect", files.clone());
        let said = ask(&place, &hub, "org/suspect");
        assert_eq!(said.mistake().0, 3);
        assert!(
            said.stderr.contains("the index names a file outside the folder"),
            "{}",
            said.stderr
        );
    }
    assert!(!place.files("").keys().any(|path| path.ends_with("escaped.safetensors")));
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let (place, hub, files) = place_and_hub();
    let mut n_cut = 0;
    hub.twist(move |seen| {
        n_cut += usize::from(is_content(seen));
        if is_content(seen) && n_cut < 3 { Twist::Cut(1_000) } else { Twist::None }
    });
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), format!("{ANSWER}\n"));
    let ranges = |seen: &[Seen]| -> Vec<Option<String>> {
        seen.iter().filter(|seen| is_content(seen)).map(|seen| seen.range.clone()).collect()
    };
    let range = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(ranges(&hub.take_seen()), [None, range(1_000), range(2_000)]);

    // Of a process that has given up the next one goes on.
    let place = Place::new();
    let mut n_cut = 0;
    hub.twist(move |seen| {
        n_cut += usize::from(is_content(seen));
        match is_content(seen) {
            true if n_cut == 1 => Twist::Cut(1_000),
            true => Twist::Refuse(503, ""),
            false => Twist::None,
        }
    });
    let said = ask(&place, &hub, "org/suspect");
    assert_snapshot!(said.mistake().1, @r"
    error: the hub answers with status 503: not with no token
    hint: try again later, or look at HF_ENDPOINT
    ");
    assert_eq!(said.mistake().0, 3);
    let hash = hash(WEIGHTS, &files[WEIGHTS]);
    assert_eq!(cached(&place, "suspect")[&format!("blobs/{hash}.incomplete")].len(), 1_000);
    hub.twist(|_| Twist::None);
    hub.take_seen();
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), format!("{ANSWER}\n"));
    assert_eq!(ranges(&hub.take_seen()), [range(1_000)]);
    assert!(cached(&place, "suspect")[&format!("blobs/{hash}")] == files[WEIGHTS]);
}

#[test]
fn a_file_of_another_hash_is_removed() {
    let (place, hub, files) = place_and_hub();
    hub.twist(|seen| if is_content(seen) { Twist::Wrong } else { Twist::None });
    let said = ask(&place, &hub, "org/suspect");
    assert_snapshot!(said.mistake().1, @r"
    error: `model.safetensors` of `org/suspect` does not have the hash that the hub says; it was removed
    hint: download it again; if that fails too, do not trust it
    ");
    assert_eq!(said.mistake().0, 3);
    let hash = hash(WEIGHTS, &files[WEIGHTS]);
    assert!(!cached(&place, "suspect").keys().any(|name| name.contains(&hash)));
    // Small files have git's hash.
    let place = Place::new();
    hub.twist(|seen| {
        let is_config = seen.method == "GET" && seen.path.ends_with("/config.json");
        if is_config { Twist::Wrong } else { Twist::None }
    });
    let said = ask(&place, &hub, "org/suspect");
    assert!(
        said.mistake().1.contains("`config.json` of `org/suspect` does not"),
        "{}",
        said.stderr
    );
    // What an earlier process has left is hashed with the rest.
    let place = Place::new();
    hub.twist(|_| Twist::None);
    fs::create_dir_all(place.path("hf/hub/models--org--suspect/blobs")).unwrap();
    place.write(
        &format!("hf/hub/models--org--suspect/blobs/{hash}.incomplete"),
        "not its beginning",
    );
    assert!(ask(&place, &hub, "org/suspect").mistake().1.contains("does not have the hash"));
    assert_eq!(ask(&place, &hub, "org/suspect").printed(), format!("{ANSWER}\n"));
}

#[test]
fn a_refusal_says_what_to_do() {
    let (place, hub, _) = place_and_hub();
    let said = |token: Option<&str>, model: &str, twist: Twist| {
        hub.twist(move |_| twist);
        let said = hub.beear(&place, token, &["inspect", "--model", model]);
        let (code, text) = said.mistake();
        assert_eq!(code, 3, "{text}");
        assert!(!text.contains(TOKEN), "{text}");
        text.replace(&hub.endpoint, "ENDPOINT")
    };
    let (model, token) = ("org/suspect", Some(TOKEN));
    assert_snapshot!(said(None, model, Twist::Refuse(401, "RepoNotFound")), @r"
    error: no folder `org/suspect` is here, and the hub shows no such repository (status 401)
    hint: correct the name; if ENDPOINT/org/suspect is private or gated, accept its licence there and set HF_TOKEN
    ");
    assert_snapshot!(said(token, model, Twist::Refuse(401, "")), @r"
    error: the hub refuses the token (status 401)
    hint: set HF_TOKEN to a token that is valid and may read ENDPOINT/org/suspect
    ");
    assert_snapshot!(said(None, model, Twist::Refuse(401, "GatedRepo")), @r"
    error: the hub does not give `org/suspect` without a token (status 401)
    hint: accept its licence at ENDPOINT/org/suspect and set HF_TOKEN
    ");
    assert_snapshot!(said(token, model, Twist::Refuse(403, "GatedRepo")), @r"
    error: the hub does not give `org/suspect` to the account of the token (status 403)
    hint: accept its licence at ENDPOINT/org/suspect with that account, and let the token read gated repositories
    ");
    assert_snapshot!(said(None, "no/such", Twist::None), @r"
    error: no folder `no/such` is here, and the hub shows no such repository (status 404)
    hint: correct the name; if ENDPOINT/no/such is private or gated, accept its licence there and set HF_TOKEN
    ");
    assert_snapshot!(said(token, "no/such", Twist::None), @r"
    error: no folder `no/such` is here, and the hub shows no such repository (status 404)
    hint: correct the name; the token may not see ENDPOINT/no/such
    ");
    assert_snapshot!(said(None, "org/suspect@v9", Twist::None), @r"
    error: `org/suspect` has no revision `v9`
    hint: ENDPOINT/org/suspect/tree/main lists its branches and tags
    ");
    assert_snapshot!(said(token, model, Twist::Refuse(429, "")), @r"
    error: the hub answers with status 429: not with Bearer [token]
    hint: wait a while; a token raises the limits
    ");
    // What the hub shows of a gated model is its list of files.
    hub.twist(
        |seen| if seen.path.contains("resolve") { Twist::Refuse(403, "") } else { Twist::None },
    );
    let said = hub.beear(&place, token, &["inspect", "--model", model]);
    assert!(said.mistake().1.contains("to the account of the token"), "{}", said.stderr);
    assert!(cached(&place, "suspect").is_empty());

    let said = hub.beear(&place, token, &["inspect", "--model", "org/suspect@../x"]);
    assert_snapshot!(said.mistake().1, @r"
    error: `../x` cannot be a revision
    hint: name a branch, a tag or a commit after the `@`
    ");
    assert_eq!(said.mistake().0, 2);
}

#[test]
fn nothing_is_downloaded_of_a_model_that_cannot_be_read() {
    let (place, hub, mut files) = place_and_hub();
    files.remove(WEIGHTS);
    files.insert("pytorch_model.bin".to_owned(), b"PK".to_vec());
    hub.push("org/suspect", files.clone());
    let said = ask(&place, &hub, "org/suspect");
    assert_snapshot!(said.mistake().1, @r"
    error: the weights in `org/suspect` are pickled; pickle files run code and are refused
    hint: load it in transformers and save with safe_serialization=True
    ");
    assert_eq!(hub.take_seen().len(), 1, "only its list of files was asked for");

    files.insert(WEIGHTS.to_owned(), b"many".to_vec());
    hub.push("org/suspect", files);
    hub.twist(|seen| if seen.path.ends_with(WEIGHTS) { Twist::Huge } else { Twist::None });
    let said = ask(&place, &hub, "org/suspect");
    assert_eq!(said.mistake().0, 6);
    assert!(said.stderr.contains("error: the download takes 1048576 TiB, "), "{}", said.stderr);
    assert!(!hub.take_seen().iter().any(is_content));
}

#[test]
fn a_plan_downloads_the_config_alone() {
    let (place, hub, files) = place_and_hub();
    let plan = hub.beear(&place, None, &["plan", "--model", "org/suspect", "--json"]).json();
    assert_eq!(plan["model"], format!("org/suspect@{}", commit(&files)));
    hub.beear(&place, None, &["recipe", "check", "quick.toml", "--model", "org/suspect"]).printed();
    let cache = cached(&place, "suspect");
    let names: Vec<&String> = cache.keys().filter(|name| name.starts_with("snapshots")).collect();
    assert_eq!(names, [&format!("snapshots/{}/config.json", commit(&files))]);
}

#[test]
fn offline_no_connection_is_opened() {
    let (place, hub, files) = place_and_hub();
    ask(&place, &hub, "org/suspect").printed();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let offline = |model: &str| {
        let mut command =
            hub.command(&place, Some(TOKEN), &["inspect", "--model", model, "--json"]);
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        command.env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", "1");
        crate::fixture::finish(&mut command, "")
    };
    let origin = json!({"repository": "org/suspect", "revision": "main", "commit": commit(&files)});
    assert_eq!(offline("org/suspect").json()["hub"]["model"], origin);
    let said = offline("org/other");
    let shown = said.mistake().1.replace(place.path("hf").to_str().unwrap(), "HF_HOME");
    assert_snapshot!(shown, @r"
    error: no folder `org/other@main` is here, nor is that model whole in the cache `HF_HOME/hub`
    hint: without HF_HUB_OFFLINE a command downloads it; or correct the folder
    ");
    assert_eq!(said.mistake().0, 3);
    // Of a download that broke off nothing is used.
    let blob = format!("hf/hub/models--org--suspect/blobs/{}", hash(WEIGHTS, &files[WEIGHTS]));
    fs::remove_file(place.path(&blob)).unwrap();
    assert_eq!(offline("org/suspect").mistake().0, 3);
    let refused = listener.accept().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "nobody has connected");
}

#[test]
fn where_the_hub_cannot_be_reached_the_cache_will_do() {
    let (place, hub, _) = place_and_hub();
    ask(&place, &hub, "org/suspect").printed();
    // A port that was free a moment ago.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = hub.command(&place, None, &["inspect", "--model", "org/suspect"]);
    let said = crate::fixture::finish(command.env("HF_ENDPOINT", format!("http://{gone}")), "");
    assert!(said.stderr.contains("cannot reach the hub at http://"), "{}", said.stderr);
    assert!(said.stderr.contains(": using `org/suspect@"), "{}", said.stderr);
    said.printed();
    let mut command = hub.command(&place, None, &["inspect", "--model", "org/other"]);
    let said = crate::fixture::finish(command.env("HF_ENDPOINT", format!("http://{gone}")), "");
    assert_eq!(said.mistake().0, 3);
    assert!(said.stderr.contains("what was downloaded stays"), "{}", said.stderr);
}

#[test]
fn a_repository_that_was_renamed_is_found() {
    let (place, hub, _) = place_and_hub();
    hub.twist(|seen| {
        if seen.path.contains("org/old") { Twist::Moved("org/suspect") } else { Twist::None }
    });
    let arguments = [["generate", "--model", "org/old"].as_slice(), &ASK].concat();
    assert_eq!(hub.beear(&place, Some(TOKEN), &arguments).printed(), format!("{ANSWER}\n"));
    let is_right = |seen: &Seen| seen.authorization.is_some() != seen.is_elsewhere;
    assert!(hub.take_seen().iter().all(is_right), "the token stays with the hub, and only there");
}

#[test]
fn two_processes_download_every_file_once() {
    let (place, hub, files) = place_and_hub();
    let arguments = [["generate", "--model", "org/suspect"].as_slice(), &ASK].concat();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let run = || hub.beear(&place, None, &arguments).printed();
        let started = [(); 3].map(|()| scope.spawn(run));
        started.map(|run| run.join().expect("it succeeds")).into()
    });
    assert_eq!(answers, vec![format!("{ANSWER}\n"); 3]);
    let seen = hub.take_seen();
    let n_content = seen.iter().filter(|seen| is_content(seen)).count();
    assert_eq!((n_content, n_asked(&seen, "GET", "/config.json")), (1, 1));
    assert!(
        cached(&place, "suspect")[&format!("snapshots/{}/{WEIGHTS}", commit(&files))]
            == files[WEIGHTS]
    );
}
