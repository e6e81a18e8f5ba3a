//! Pictures from a file as a part of a page: elements that draw or write text, and nothing that
//! runs or loads.

/// Elements that draw.
const ELEMENTS: [&str; 8] =
    ["svg", "rect", "circle", "line", "polyline", "polygon", "path", "text"];

/// Attributes for position, size and colour.
const ATTRIBUTES: [&str; 27] = [
    "width",
    "height",
    "viewBox",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "cx",
    "cy",
    "r",
    "rx",
    "ry",
    "d",
    "points",
    "dx",
    "dy",
    "fill",
    "stroke",
    "stroke-width",
    "opacity",
    "fill-opacity",
    "text-anchor",
    "font-family",
    "font-size",
    "transform",
];

/// Returns the picture without its namespace, or `None` if it has an element or an attribute that
/// is not in the lists above.
pub(crate) fn harmless_svg(text: &str) -> Option<String> {
    let text = text.trim().replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    let harmless = text.starts_with("<svg ")
        && text.ends_with("</svg>")
        && text.split('<').skip(1).all(|tag| {
            let (inside, _) = tag.split_once('>').unwrap_or(("!", ""));
            is_harmless(inside)
        });
    harmless.then_some(text)
}

/// Returns true if the tag, given without `<` and `>`, is an allowed element with allowed
/// attributes.
fn is_harmless(tag: &str) -> bool {
    if let Some(closed) = tag.strip_prefix('/') {
        return ELEMENTS.contains(&closed.trim());
    }
    let tag = tag.trim_end_matches('/').trim();
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    if !ELEMENTS.contains(&name) {
        return false;
    }
    // The rest is a sequence of `name="value"`.
    while !rest.trim().is_empty() {
        let Some((attribute, after)) = rest.trim_start().split_once("=\"") else { return false };
        let Some((value, after)) = after.split_once('"') else { return false };
        let is_plain = !value.contains([':', '\\', '&']) && !value.contains("url");
        if !ATTRIBUTES.contains(&attribute) || !is_plain {
            return false;
        }
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{HeatRow, LinePanel, Series, heat_map, line_panels};

    #[test]
    fn our_own_charts_pass() {
        let row = HeatRow { name: "1".to_owned(), shares: vec![1.0, 0.2], framed: Some(0) };
        let heat = heat_map("a < b", &[row], "round").unwrap();
        let series = vec![Series::new("a", [(0, 0.5), (1, 0.25)])];
        let lines = line_panels(&[LinePanel { title: "t".to_owned(), series }], "x").unwrap();
        for svg in [heat, lines] {
            let text = harmless_svg(&svg).expect("it draws and no more");
            assert!(!text.contains("http"));
        }
    }

    #[test]
    fn what_runs_or_loads_does_not() {
        for inside in [
            "<script>alert(1)</script>",
            "<rect onload=\"x\"/>",
            "<rect fill=\"url(#a)\"/>",
            "<image href=\"a.png\"/>",
            "<text onclick=x>a</text>",
            "<style>@import 'a'</style>",
            "<!-- a -->",
            "<rect fill='red'/>",
            "<",
        ] {
            let svg = format!("<svg width=\"1\" height=\"1\">{inside}</svg>");
            assert!(harmless_svg(&svg).is_none(), "{inside}");
        }
        assert!(harmless_svg("<p>no picture</p>").is_none());
    }
}
