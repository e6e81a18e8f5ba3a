//! A prompt without what does not tell prompts apart: case, Unicode form, punctuation, white space.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use caseless::Caseless;
use regex_syntax::hir::{Class as HirClass, HirKind};
use unicode_normalization::UnicodeNormalization;

/// A prompt, folded.
pub(super) struct Folded {
    /// All letters and digits, white space left out: a space stands between two numbers only. Equal in exact copies.
    pub(super) text: String,
    /// Hashes of the pairs of adjacent words, each once, rising. Two of 10⁷ different pairs share a hash of 64 bits
    /// with a probability of 3 in a million.
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

/// The characters of `text` that can be seen, in NFKC and fully case-folded (Unicode Standard, D146).
fn case_folded(text: &str) -> impl Iterator<Item = char> {
    let visible = text.chars().filter(|&c| Class::of(c) != Class::Invisible);
    // The standard library may know letters of a later version of Unicode than the folding.
    let lower = visible.nfd().flat_map(char::to_lowercase);
    lower.default_case_fold().nfkd().default_case_fold().nfkc()
}

/// What a character is to the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    /// A part of a word between separators: a letter, mark or digit.
    #[default]
    Word,
    /// A letter of a script that puts no space between words.
    Unspaced,
    /// Punctuation or a symbol.
    Punctuation,
    /// White space or a control character.
    Space,
    /// A character that shows nothing: zero-width, format or ignored by default.
    Invisible,
}

/// Classes of characters as Unicode has them, a later one before an earlier one.
///
/// Scripts without spaces are those of line breaking classes ID and SA (Unicode Standard Annex 14). Their
/// extensions bring shared letters such as the prolonged sound mark of the kanas.
const CLASSES: [(Class, &str); 4] = [
    (
        Class::Unspaced,
        r"[[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}\p{scx=Tai_Le}\p{scx=New_Tai_Lue}\p{scx=Tai_Tham}\p{scx=Tai_Viet}\p{scx=Javanese}\p{scx=Balinese}]&&[\p{L}\p{M}]&&[^\p{scx=Latin}]]",
    ),
    (Class::Punctuation, r"[\p{P}\p{S}]"),
    (Class::Space, r"[\p{Z}\p{Cc}]"),
    (Class::Invisible, r"[\p{Cf}\p{Default_Ignorable_Code_Point}]"),
];

/// The class of every code point.
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

/// Words in the making.
#[derive(Default)]
struct Words {
    text: String,
    hashes: Vec<u64>,
    /// The last letter or digit, with its class and its place in `text`.
    last: Option<(char, Class, usize)>,
    /// Start in `text` of the word that `last` belongs to.
    start: usize,
    /// Whether something stands between `last` and the next character.
    is_cut: bool,
    /// The punctuation there.
    punctuation: String,
}

impl Words {
    /// Takes the next character, case-folded.
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

    /// A letter or digit of a word between separators.
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

    /// A character that is no word by itself: a run of such characters stands for its overlapping pairs, spaces
    /// and punctuation left out, so that a pair of adjacent "words" is three characters.
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

    /// What stands between two digits is an operator, a decimal point or the end of a number.
    fn between_digits(&mut self) {
        if self.punctuation.is_empty() {
            self.text.push(' ');
        } else {
            self.hashes.push(hashed(&self.punctuation));
            self.text.push_str(&self.punctuation);
        }
    }

    /// Ends the word of `last`. A run of several unspaced characters has its pairs already.
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

/// The same in every run.
fn hashed(word: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(word.as_bytes());
    hasher.finish()
}

/// The hash of an ordered pair, its bits spread by the finaliser of MurmurHash3.
fn mixed(first: u64, second: u64) -> u64 {
    let mut bits = first.rotate_left(25).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second;
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}
