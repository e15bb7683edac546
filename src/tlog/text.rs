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

/// Reads base64: padded, with no bits set that belong to no byte, and in one piece. The decoder by
/// itself takes several padded pieces one behind the other, which is another text of the same bytes.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    if text.trim_end_matches('=').contains('=') {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

/// Reads a hash in base64.
pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    Some(Hash::from_bytes(from_base64(text)?.try_into().ok()?))
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
    fn base64_is_in_one_piece() {
        for good in ["", "YQ==", "YWI=", "YWJj", "YWJjYQ=="] {
            assert_eq!(BASE64.encode(&from_base64(good).unwrap()), good);
        }
        for bad in ["YWI=YWJj", "YQ==YQ==", "YWI=YWI=", "=", "====", "YQ=", "YQ===", "YR=="] {
            assert_eq!(from_base64(bad), None, "{bad}");
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
        // 2 bytes and 30, each padded by itself.
        let pieces =
            format!("{}{}", BASE64.encode(&hash.as_bytes()[..2]), BASE64.encode(&hash.as_bytes()[2..]));
        for bad in [unpadded, &loose, &url, &pieces, "", "AAAA", &format!("{text}\n"), &format!(" {text}")] {
            assert_eq!(hash_from_base64(bad), None, "{bad}");
        }
    }
}
