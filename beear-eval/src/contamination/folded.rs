//! Folding of prompts: removes differences of case, Unicode form, punctuation and white space.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use caseless::Caseless;
use regex_syntax::hir::{Class as HirClass, HirKind};
use unicode_normalization::UnicodeNormalization;

/// Folded prompt.
pub(super) struct Folded {
    /// All letters and digits without white space, except a space between two numbers. Equal in
    /// exact copies.
    pub(super) text: String,
    /// Distinct hashes of the pairs of adjacent words, in ascending order. Any two of 10⁷ different
    /// pairs share a 64-bit hash with a probability of 3 in a million.
    pub(super) pairs: Vec<u64>,
}

impl Folded {
    pub(super) fn new(prompt: &str) -> Self {
        let mut words = Words::default();
        if prompt.is_ascii() {
            prompt.chars().for_each(|c| words.take(c.to_ascii_lowercase()));
        } else {
            case_folded(prompt).for_each(|c| words.take(c));
        }
        let Words { mut text, hashes, .. } = words.end();
        if text.is_empty() {
            text = case_folded(prompt).filter(|c| !c.is_whitespace()).collect();
        }
        let mut pairs: Vec<u64> = hashes.windows(2).map(|pair| mixed(pair[0], pair[1])).collect();
        pairs.sort_unstable();
        pairs.dedup();
        Self { text, pairs }
    }
}

/// Returns the visible characters of `text` in NFKC, fully case-folded (Unicode Standard, D146).
fn case_folded(text: &str) -> impl Iterator<Item = char> {
    let visible = text.chars().filter(|&c| Class::of(c) != Class::Invisible);
    // The standard library may know letters of a later Unicode version than the case folding does.
    let lower = visible.nfd().flat_map(char::to_lowercase);
    lower.default_case_fold().nfkd().default_case_fold().nfkc()
}

/// Class of a character in the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    /// Letter, mark or digit, part of a word between separators.
    #[default]
    Word,
    /// Letter of a script without spaces between words.
    Unspaced,
    /// Punctuation mark or symbol.
    Punctuation,
    /// White space or control character.
    Space,
    /// Invisible character: zero-width, format or ignored by default.
    Invisible,
}

/// Character classes in terms of Unicode properties; a later class overrides an earlier one.
///
/// Scripts without spaces are those of line breaking classes ID and SA (Unicode Standard Annex 14).
/// Their script extensions include shared letters such as the prolonged sound mark of the kanas.
const CLASSES: [(Class, &str); 4] = [
    (
        Class::Unspaced,
        r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}\p{scx=Tai_Le}\p{scx=New_Tai_Lue}\p{scx=Tai_Tham}\p{scx=Tai_Viet}\p{scx=Javanese}\p{scx=Balinese}]&&[\p{L}\p{M}]&&[^\p{scx=Latin}]]",
    ),
    (Class::Punctuation, r"[\p{P}\p{S}]"),
    (Class::Space, r"[\p{Z}\p{Cc}]"),
    (Class::Invisible, r"[\p{Cf}\p{Default_Ignorable_Code_Point}]"),
];

/// Class of every code point.
static CLASS_OF: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let mut classes = vec![Class::Word; char::MAX as usize + 1];
    for (class, pattern) in CLASSES {
        let parsed = regex_syntax::parse(pattern).expect("the patterns are constant and tested");
        let HirKind::Class(HirClass::Unicode(members)) = parsed.into_kind() else { continue };
        for range in members.ranges() {
            classes[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    classes
});

impl Class {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => Self::Word,
            '!'..='~' => Self::Punctuation,
            '\0'..='\x7f' => Self::Space,
            _ => CLASS_OF[c as usize],
        }
    }
}

/// Builder of a folded prompt.
#[derive(Default)]
struct Words {
    text: String,
    hashes: Vec<u64>,
    /// Last letter or digit, with its class and its byte offset in `text`.
    last: Option<(char, Class, usize)>,
    /// Byte offset in `text` of the start of the word that `last` belongs to.
    start: usize,
    /// True if a separator stands between `last` and the next character.
    is_cut: bool,
    /// Punctuation since `last`.
    punctuation: String,
}

impl Words {
    /// Appends the next case-folded character.
    fn take(&mut self, c: char) {
        match Class::of(c) {
            Class::Invisible => {}
            Class::Space => self.is_cut = true,
            Class::Punctuation => {
                self.is_cut = true;
                self.punctuation.push(if is_dash(c) { '-' } else { c });
            }
            Class::Word => self.letter(c),
            Class::Unspaced => self.unspaced(c),
        }
    }

    /// Appends a letter or digit of a word between separators.
    fn letter(&mut self, c: char) {
        let is_inside = !self.is_cut && self.last.is_some_and(|(_, class, _)| class == Class::Word);
        if !is_inside {
            self.close();
            let follows_digit = self.last.is_some_and(|(last, ..)| last.is_numeric());
            if follows_digit && self.is_cut && c.is_numeric() {
                self.between_digits();
            }
            self.start = self.text.len();
        }
        self.push(c, Class::Word);
    }

    /// Appends a character of a script without spaces. A run of such characters is represented by
    /// its overlapping pairs, without spaces and punctuation, so that a pair of adjacent "words" is
    /// three characters.
    fn unspaced(&mut self, c: char) {
        if let Some((_, Class::Unspaced, at)) = self.last {
            self.push(c, Class::Unspaced);
            self.hashes.push(hashed(&self.text[at..]));
        } else {
            self.close();
            self.start = self.text.len();
            self.push(c, Class::Unspaced);
        }
    }

    fn push(&mut self, c: char, class: Class) {
        self.last = Some((c, class, self.text.len()));
        self.text.push(c);
        self.is_cut = false;
        self.punctuation.clear();
    }

    /// Appends the characters between two digits: an operator, a decimal point or the end of a
    /// number.
    fn between_digits(&mut self) {
        if self.punctuation.is_empty() {
            self.text.push(' ');
        } else {
            self.hashes.push(hashed(&self.punctuation));
            self.text.push_str(&self.punctuation);
        }
    }

    /// Ends the word of `last`. The pairs of a run of several unspaced characters are already
    /// recorded.
    fn close(&mut self) {
        let word = &self.text[self.start..];
        let is_whole = match self.last {
            None => false,
            Some((_, Class::Unspaced, at)) => at == self.start,
            Some(_) => true,
        };
        if is_whole {
            self.hashes.push(hashed(word));
        }
    }

    fn end(mut self) -> Self {
        self.close();
        self
    }
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// Hashes a word; the hash is equal in every run.
fn hashed(word: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(word.as_bytes());
    hasher.finish()
}

/// Hashes an ordered pair, with the bits spread by the finaliser of MurmurHash3.
fn mixed(first: u64, second: u64) -> u64 {
    let mut bits = first.rotate_left(25).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second;
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}
