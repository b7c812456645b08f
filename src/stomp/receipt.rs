//! The fast way through a RECEIPT: one comes for each message.

use super::decode::Limits;

/// A frame longer than this goes the slow way.
const LONGEST: usize = 256;

/// The number and the length in bytes of the RECEIPT at the beginning of `input`.
///
/// `None` for anything that is not a whole, plain RECEIPT with a decimal receipt id: the slow way
/// then reads it, to the same result. `crlf` says whether lines may end in CR LF.
pub(super) fn parse(input: &[u8], crlf: bool, limits: &Limits) -> Option<(u64, usize)> {
    if limits.header_line < LONGEST {
        return None;
    }
    let input = &input[..input.len().min(LONGEST)];
    let mut rest = end_of_line(input.strip_prefix(b"RECEIPT")?, crlf)?;
    let mut number = None;
    let mut headers = 0;
    loop {
        if let Some(body) = end_of_line(rest, crlf) {
            let after = body.strip_prefix(&[0])?;
            return Some((number?, input.len() - after.len()));
        }
        headers += 1;
        if headers > limits.headers {
            return None;
        }
        rest = match rest.strip_prefix(b"receipt-id:") {
            Some(value) if number.is_none() => {
                let digits = value.iter().position(|byte| !byte.is_ascii_digit())?;
                number = Some(plain_decimal(&value[..digits])?);
                end_of_line(&value[digits..], crlf)?
            }
            _ => skip_plain_header(rest, crlf)?,
        };
    }
}

/// A number written in the one usual way: digits only, no leading zero, not above `u64::MAX`.
pub(super) fn plain_decimal(digits: &[u8]) -> Option<u64> {
    match digits {
        [] | [b'0', _, ..] => None,
        _ => digits.iter().try_fold(0_u64, |number, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
            number.checked_mul(10)?.checked_add(u64::from(digit))
        }),
    }
}

/// What follows an end of line at the beginning of `rest`.
fn end_of_line(rest: &[u8], crlf: bool) -> Option<&[u8]> {
    match rest {
        [b'\n', after @ ..] => Some(after),
        [b'\r', b'\n', after @ ..] if crlf => Some(after),
        _ => None,
    }
}

/// What follows a header line that says nothing about the body and needs no decoding.
fn skip_plain_header(rest: &[u8], crlf: bool) -> Option<&[u8]> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let line = &rest[..end];
    let colon = memchr::memchr(b':', line)?;
    let plain = line.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
    if colon == 0 || !plain || &line[..colon] == b"content-length" {
        return None;
    }
    end_of_line(&rest[end..], crlf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { header_line: 1024, headers: 3, body: 10 };

    #[test]
    fn plain_receipts() {
        for (text, number) in [
            ("RECEIPT\nreceipt-id:7\n\n\0", 7),
            ("RECEIPT\nreceipt-id:0\n\n\0", 0),
            ("RECEIPT\r\nreceipt-id:18446744073709551615\r\n\r\n\0", u64::MAX),
            ("RECEIPT\nx:\nreceipt-id:12\nreceipt-id:13\n\n\0", 12),
        ] {
            let more = format!("{text}\nRECEIPT\n");
            assert_eq!(
                parse(text.as_bytes(), true, &LIMITS),
                Some((number, text.len())),
                "{text:?}"
            );
            assert_eq!(
                parse(more.as_bytes(), true, &LIMITS),
                Some((number, text.len())),
                "{text:?}"
            );
            for end in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..end], true, &LIMITS), None, "{text:?} {end}");
            }
        }
    }

    #[test]
    fn the_rest_goes_the_slow_way() {
        for text in [
            "RECEIPTS\nreceipt-id:7\n\n\0",
            "RECEIPT\n\n\0",
            "RECEIPT\nreceipt-id:\n\n\0",
            "RECEIPT\nreceipt-id:07\n\n\0",
            "RECEIPT\nreceipt-id:+7\n\n\0",
            "RECEIPT\nreceipt-id:7 \n\n\0",
            "RECEIPT\nreceipt-id:18446744073709551616\n\n\0",
            "RECEIPT\nreceipt-id:7\ncontent-length:0\n\n\0",
            "RECEIPT\nreceipt-id:7\n\nbody\0",
            "RECEIPT\nreceipt-id:7\nx\\c:1\n\n\0",
            "RECEIPT\nreceipt-id:7\nno colon\n\n\0",
            "RECEIPT\nreceipt-id:7\n:no name\n\n\0",
            "RECEIPT\nreceipt-id:7\nx:ä\n\n\0",
            "RECEIPT\nreceipt-id:7\na:1\nb:1\nc:1\n\n\0",
            "MESSAGE\nreceipt-id:7\n\n\0",
        ] {
            assert_eq!(parse(text.as_bytes(), true, &LIMITS), None, "{text:?}");
        }
        let crlf = b"RECEIPT\r\nreceipt-id:7\r\n\r\n\0";
        assert_eq!(parse(crlf, false, &LIMITS), None);
    }
}
