//! `beear doctor`.

use serde_json::Value;

use crate::fixture::Place;

#[test]
fn the_doctor_tells_what_there_is_and_how_to_get_the_rest() {
    let place = Place::new();
    let found = place.beear(&["doctor", "--json"]).json();
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert!(found["threads"].as_u64() >= Some(1));
    let backends = found["backends"].as_array().unwrap();
    let flex = &backends[0];
    assert_eq!((&flex["name"], &flex["available"]), (&Value::from("flex"), &Value::from(true)));
    assert_eq!((&flex["devices"], &flex["bits"]), (&Value::from(1), &Value::from(32)));

    let mut names: Vec<&str> = backends.iter().filter_map(|b| b["name"].as_str()).collect();
    for missing in found["not_compiled_in"].as_array().unwrap() {
        let (name, command) = (missing["name"].as_str().unwrap(), &missing["command"]);
        assert!(command.as_str().unwrap().ends_with(&format!("--features {name}")), "{command}");
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, ["cuda", "flex", "ndarray", "wgpu"]);

    let printed = place.beear(&["doctor"]).printed();
    assert!(printed.contains("backend flex: ready, 1 device, 32 bits a weight, the default"));
    assert!(printed.contains("threads: "), "{printed}");
}
