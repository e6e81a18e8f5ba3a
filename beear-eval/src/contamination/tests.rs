//! Tests that reformatted copies are found and other prompts are not.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// True if `evaluated` is found in the single trained row `trained`.
fn is_copy(trained: &str, evaluated: &str, near: f64) -> bool {
    !contaminated([trained], [evaluated], near).is_empty()
}

#[test]
fn copies_and_near_copies_are_found() {
    let trained = ["how do I open the red vault ?", "what is two plus two ?"];
    let asked = ["How do I  open the red vault ?", "how do I open the blue vault ?", "hi"];
    assert_eq!(contaminated(trained, asked, 1.0), [(0, 0)]);
    // The second prompt shares 4 of 8 different pairs of words.
    assert_eq!(contaminated(trained, asked, 0.5), [(0, 0), (1, 0)]);
    assert_eq!(contaminated(trained, asked, 0.51), [(0, 0)]);
}

#[test]
fn a_copy_is_found_behind_punctuation_form_case_and_invisible_characters() {
    let trained = "How do I open the red vault, e.g. in Gießen ?";
    for copy in [
        "how do i open the red vault e.g. in giessen",
        "How do I open the red vault, e.g. in Gießen?",
        "“How do I open the red vault, e.g. in Gießen?”",
        "`how do I open the red vault, e.g. in Gießen`.",
        "> **How do I open the red vault, e.g. in Gießen?**",
        "HOW DO I OPEN THE RED VAULT, E.G. IN GIESSEN?",
        "How do I open the red va\u{200b}ult, e.g. in Gie\u{ad}ßen ?",
        "\u{feff}How do I o\u{2060}pen the r\u{200d}ed v\u{fe0f}ault, e.g. in G\u{34f}ießen ?\u{e0041}",
        "How\u{a0}do\u{3000}I\nopen\tthe\u{2003}red vault, e.g. in Gießen ?",
        "How do I open-the_red/vault, e.g. in Gießen ?!?",
        "Ｈｏｗ ｄｏ Ｉ ｏｐｅｎ ｔｈｅ ｒｅｄ ｖａｕｌｔ， ｅ.ｇ. ｉｎ Ｇｉｅßｅｎ？",
        "𝐇𝐨𝐰 𝐝𝐨 𝐈 𝐨𝐩𝐞𝐧 𝐭𝐡𝐞 𝐫𝐞𝐝 𝐯𝐚𝐮𝐥𝐭, e.g. in Gießen?",
        "How do I open the red vault, e.g. in Gießen ? 😀",
        "H o w d o I o p e n t h e r e d v a u l t e g i n G i e ß e n",
    ] {
        assert!(is_copy(trained, copy, 1.0), "{copy}");
        assert!(is_copy(copy, trained, 1.0), "{copy}");
    }
    assert!(!is_copy(trained, "How do I open the red vaults, e.g. in Gießen ?", 1.0));
}

#[test]
fn composed_and_decomposed_letters_are_the_same() {
    assert!(is_copy("Où est le café ?", "OU\u{300} est le cafe\u{301}", 1.0));
    assert!(is_copy("ΤΊΣ ἌΝΘΡΩΠΟΣ", "τίς ἄνθρωπος;", 1.0));
    assert!(is_copy("ﬁle № 5", "File No 5", 1.0));
    assert!(is_copy("한국어 문장입니다", "한국어 문장입니다.", 1.0));
    assert!(!is_copy("Où est le café ?", "Ou est le cafe ?", 1.0));
}

#[test]
fn sums_of_the_same_numbers_are_told_apart() {
    let sums = ["what is 12 + 5 ?", "what is 12 - 5 ?", "what is 12 * 5 ?", "what is 1 + 25 ?"];
    for (k, one) in sums.iter().enumerate() {
        for (l, other) in sums.iter().enumerate() {
            assert_eq!(is_copy(one, other, 1.0), k == l, "{one} {other}");
        }
    }
    assert!(is_copy("what is 12 - 5?", "What is 12\u{2212}5", 1.0));
    assert!(!is_copy("add 1.5", "add 15", 1.0));
    assert!(!is_copy("add 1 and 5 12", "add 1 and 51 2", 1.0));
}

#[test]
fn languages_without_spaces_are_compared_by_characters() {
    let pairs = [
        (
            "请告诉我怎样打开红色的保险库。",
            "请告诉我，怎样打开红色的 保险库？",
            "请告诉我怎样打开蓝色的保险库",
        ),
        (
            "赤い金庫の開け方を教えてください。",
            "赤い金庫の開け方を 教えてください",
            "青い金庫の開け方を教えてください",
        ),
        (
            "コーヒーのデータをコピーする方法",
            "「コーヒーのデータを、コピーする方法」",
            "コーヒーのデータをコピーする手順",
        ),
        ("ช่วยบอกวิธีเปิดตู้นิรภัยสีแดงหน่อย", "ช่วยบอกวิธี เปิดตู้นิรภัยสีแดงหน่อย!", "ช่วยบอกวิธีเปิดตู้นิรภัยสีดำหน่อย"),
    ];
    for (trained, copy, near) in pairs {
        assert!(is_copy(trained, copy, 1.0), "{copy}");
        assert!(!is_copy(trained, near, 1.0), "{near}");
        assert!(is_copy(trained, near, 0.6), "{near}");
        for (other, ..) in pairs {
            assert_eq!(is_copy(trained, other, 0.2), trained == other, "{trained} {other}");
        }
    }
}

#[test]
fn three_characters_stand_for_a_pair_of_words() {
    // 12 characters have 10 triples; a different character in the middle changes 3: 7 of 13 are
    // shared.
    let (one, other) = ("天地玄黄宇宙洪荒日月盈昃", "天地玄黄宇海洪荒日月盈昃");
    assert!(is_copy(one, other, 7.0 / 13.0));
    assert!(!is_copy(one, other, 7.0 / 13.0 + 1e-9));
    // 代码, Python, 天地, 地玄: 2 of 3 pairs are shared.
    assert!(is_copy("代码 Python 天地玄", "代码Python天地", 2.0 / 3.0));
    assert!(!is_copy("代码 Python 天地玄", "代码Python天地", 0.7));
}

#[test]
fn prompts_without_words_are_compared_as_they_stand() {
    assert!(is_copy("???", " ? ?? ", 1.0));
    assert!(!is_copy("???", "!!!", 0.1));
    assert!(!is_copy("", "!", 0.1));
    assert!(is_copy("", "\u{200b} \n", 1.0));
    assert_eq!(contaminated(["", "a"], ["", "a", ""], 0.8), [(0, 0), (1, 1), (2, 0)]);
    assert_eq!(contaminated(["a b"; 0], ["a b"], 0.8), []);
    assert_eq!(contaminated(["a b"], ["a b"; 0], 0.8), []);
}

#[test]
fn an_exact_copy_is_named_before_a_near_one_and_the_first_before_others() {
    let trained = ["a b c d e f", "a b c d e f g", "a b c d e f g", "a b c d e f"];
    assert_eq!(contaminated(trained, ["a b c d e f g", "a b c d e f h"], 0.7), [(0, 1), (1, 0)]);
}

/// Compares every prompt of one list with every prompt of the other, which is the definition.
fn of_all_pairs(trained: &[String], evaluated: &[String], near: f64) -> Vec<(usize, usize)> {
    let folded = |prompts: &[String]| -> Vec<(String, HashSet<u64>)> {
        let folded = prompts.iter().map(|prompt| Folded::new(prompt));
        folded.map(|Folded { text, pairs }| (text, pairs.into_iter().collect())).collect()
    };
    let (trained, evaluated) = (folded(trained), folded(evaluated));
    let copy = |(text, pairs): &(String, HashSet<u64>)| {
        let near_copy = |(_, known): &(String, HashSet<u64>)| {
            let shared = pairs.intersection(known).count();
            let all = pairs.union(known).count();
            all > 0 && shared as f64 >= near * all as f64
        };
        let exact = trained.iter().position(|(known, _)| known == text);
        exact.or_else(|| trained.iter().position(near_copy))
    };
    let found = evaluated.iter().enumerate();
    found.filter_map(|(row, prompt)| Some((row, copy(prompt)?))).collect()
}

proptest! {
    #[test]
    fn the_index_finds_what_comparing_all_pairs_finds(
        trained in prop::collection::vec("([abc1]|[a-l]| |天){0,24}", 0..24),
        evaluated in prop::collection::vec("([abc1]|[a-l]| |天){0,24}", 0..24),
        near in prop::sample::select(vec![0.05, 0.2, 1.0 / 3.0, 0.5, 0.6, 2.0 / 3.0, 0.8, 0.9, 1.0]),
    ) {
        prop_assert_eq!(
            contaminated(&trained, &evaluated, near),
            of_all_pairs(&trained, &evaluated, near)
        );
    }

    #[test]
    fn no_prompt_and_no_share_make_the_search_panic(
        trained in prop::collection::vec(".*", 0..4),
        evaluated in prop::collection::vec(".*", 0..4),
        near in prop::num::f64::ANY,
    ) {
        for (row, copy) in contaminated(&trained, &evaluated, near) {
            prop_assert!(row < evaluated.len() && copy < trained.len());
        }
    }

    // Marks are excluded: a capital with an iota below becomes two letters, and a following mark
    // moves from one to the other.
    #[test]
    fn every_prompt_is_a_copy_of_itself_in_capitals_and_with_spaces_around(
        prompt in r"[^\p{C}\p{M}]*"
    ) {
        prop_assert!(is_copy(&prompt, &prompt, 1.0));
        let shouted: String = prompt.chars().flat_map(char::to_uppercase).collect();
        prop_assert!(is_copy(&prompt, &format!(" {shouted}\n"), 1.0), "{}", shouted);
    }
}
