use sha2::{Digest, Sha256};

use super::*;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| {
            number << 8 | usize::from(three.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = char::from(DIGITS[number >> (18 - 6 * place) & 63]);
            text.push(if place <= three.len() { digit } else { '=' });
        }
    }
    text
}

#[test]
fn the_policy_names_this_script_and_this_style() {
    assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
    let digests = [SCRIPT, STYLE].map(|text| base64(&Sha256::digest(text)));
    assert_eq!(DIGESTS, digests.each_ref().map(String::as_str));
    assert!(DIGESTS.iter().all(|digest| POLICY.contains(&format!("'sha256-{digest}'"))));
    // Else the page would end in the middle of them.
    assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !STYLE.contains('<'));
}
