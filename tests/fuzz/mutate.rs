//! The mutations of the short form: of bytes, and blind to what they mean.

use super::dice::Dice;

const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    253_402_300_799_999_999,
    i64::MAX as u64,
    u64::MAX,
];

/// The longest input that is made of another.
const LONGEST: usize = 256 << 10;

/// One of `seeds`, changed in one to four places.
pub fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.index(seeds.len())].clone();
    for _ in 0..=dice.index(4) {
        change(&mut bytes, seeds, dice);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.index(bytes.len() + 1);
    let end = (at + 1 + dice.index(64)).min(bytes.len());
    match dice.index(12) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << dice.index(8),
        2 if at < bytes.len() => bytes[at] = dice.next().to_le_bytes()[0],
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end.max(at))),
        5 => {
            let copy = bytes[at..end.max(at)].to_vec();
            bytes.splice(at..at, copy);
        }
        6 => {
            let byte = dice.next().to_le_bytes()[0];
            bytes.splice(at..at, vec![byte; 1 + dice.index(40)]);
        }
        7 => {
            // A field of a fixed width, big-endian.
            let number = NUMBERS[dice.index(NUMBERS.len())];
            let width = [1, 2, 4, 8][dice.index(4)];
            let field = &number.to_be_bytes()[8 - width..];
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&field[..end - at]);
        }
        8 => {
            // The length of what is behind it, or nearly.
            let length = u32::try_from(bytes.len() - at).unwrap_or(u32::MAX);
            let near = length.wrapping_add(u32::try_from(dice.index(3)).unwrap()).wrapping_sub(1);
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&near.to_be_bytes()[..end - at]);
        }
        9 => {
            // A number in a text.
            let Some(begin) = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) else { return };
            let digits = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = NUMBERS[dice.index(NUMBERS.len())].to_string();
            bytes.splice(begin..begin + digits, number.into_bytes());
        }
        10 => {
            // The end of another one.
            let other = &seeds[dice.index(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[dice.index(other.len() + 1)..]);
        }
        11 => {
            // Two lines change places, or the only one is there twice.
            let mut lines: Vec<Vec<u8>> =
                bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (one, other) = (dice.index(lines.len()), dice.index(lines.len()));
            match lines.len() {
                0 => {}
                1 => lines.push(lines[0].clone()),
                _ => lines.swap(one, other),
            }
            *bytes = lines.concat();
        }
        _ => {}
    }
}
