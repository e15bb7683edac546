//! The pieces of text that the formats share, each with one form.

use data_encoding::BASE64;

use crate::merkle::Hash;

/// Reads a decimal number: digits only, and no zero in front.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// A hash in base64.
pub(crate) fn base64_of(hash: &Hash) -> String {
    BASE64.encode(hash.as_bytes())
}

/// Reads a hash in base64: padded, with no bits set that belong to no byte.
pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    Some(Hash::from_bytes(bytes.try_into().ok()?))
}

/// The lines of a text that ends each of them with a line feed.
pub(crate) fn lines(text: &str) -> Option<std::str::Split<'_, char>> {
    Some(text.strip_suffix('\n')?.split('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "01", "+1", "-0", " 1", "1 ", "1_0", "0x1", "١", "18446744073709551616"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hash_has_one_form() {
        let hash = Hash::of(b"x");
        let text = base64_of(&hash);
        assert_eq!(hash_from_base64(&text), Some(hash));
        let unpadded = text.trim_end_matches('=');
        // The last digit of 32 bytes carries two bits that belong to no byte.
        let mut loose = unpadded.to_owned();
        let last = loose.pop().unwrap();
        loose.push(char::from(u8::try_from(last).unwrap() + 1));
        loose.push('=');
        let url = text.replace('+', "-").replace('/', "_");
        assert_ne!(url, text);
        for bad in [unpadded, &loose, &url, "", "AAAA", &format!("{text}\n"), &format!(" {text}")] {
            assert_eq!(hash_from_base64(bad), None, "{bad}");
        }
    }
}
