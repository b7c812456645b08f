//! What the server may ask for in SCRAM, checked before anything is computed.

/// The most rounds of hashing that a server may ask for; PostgreSQL's default is 4096. The library
/// that does the hashing has the same limit, as have other drivers since CVE-2026-42198: without one,
/// whoever answers on the server's port can keep this process busy for as long as they like.
pub const MAX_ITERATIONS: u32 = 100_000;

/// The longest nonce and the longest salt (in base64) that are looked at, in bytes. PostgreSQL
/// sends 48 and 24.
const MAX_TEXT: usize = 1024;

/// A server-first message that is not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not `r=…,s=…,i=…`, or something in it is too long.
    #[error("the server's SCRAM message is malformed")]
    Malformed,
    /// More rounds of hashing than anyone should ask for.
    #[error(
        "the server asks for {iterations} SCRAM iterations, more than {MAX_ITERATIONS}; \
         set scram_iterations lower and set the password again"
    )]
    TooManyIterations {
        /// What it asks for.
        iterations: u32,
    },
}

/// Checks a server-first message (RFC 5802) before it is acted on.
pub(super) fn check_server_first(message: &[u8]) -> Result<(), ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed)?;
    let mut attributes = text.splitn(3, ',');
    let mut attribute = |name: &str| attributes.next().and_then(|found| found.strip_prefix(name));
    let (Some(nonce), Some(salt), Some(iterations)) =
        (attribute("r="), attribute("s="), attribute("i="))
    else {
        return Err(ScramError::Malformed);
    };
    let digits = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit());
    if nonce.len() > MAX_TEXT || salt.len() > MAX_TEXT || !digits {
        return Err(ScramError::Malformed);
    }
    // What does not even fit is too much as well.
    match iterations.parse().unwrap_or(u32::MAX) {
        0 => Err(ScramError::Malformed),
        iterations if iterations > MAX_ITERATIONS => {
            Err(ScramError::TooManyIterations { iterations })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(iterations: &str) -> Result<(), ScramError> {
        check_server_first(format!("r=nonce,s=c2FsdA==,i={iterations}").as_bytes())
    }

    #[test]
    fn the_iterations_are_capped() {
        assert_eq!(check("4096"), Ok(()));
        assert_eq!(check("100000"), Ok(()));
        let too_many = |iterations| Err(ScramError::TooManyIterations { iterations });
        assert_eq!(check("100001"), too_many(100_001));
        assert_eq!(check("4294967295"), too_many(u32::MAX));
        assert_eq!(check("99999999999999999999"), too_many(u32::MAX));
    }

    #[test]
    fn what_is_malformed_is_not_acted_on() {
        for iterations in ["", "0", "-1", "+1", "4096,x=1", "0x10", " 1"] {
            assert_eq!(check(iterations), Err(ScramError::Malformed), "{iterations}");
        }
        for message in ["", "r=a", "s=a,r=a,i=1", "e=other-error", "m=x,r=a,s=a,i=1"] {
            assert!(check_server_first(message.as_bytes()).is_err(), "{message}");
        }
        let long = "a".repeat(MAX_TEXT + 1);
        assert!(check_server_first(format!("r={long},s=a,i=1").as_bytes()).is_err());
        assert!(check_server_first(format!("r=a,s={long},i=1").as_bytes()).is_err());
        assert!(check_server_first(b"r=\xff,s=a,i=1").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked(message in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = check_server_first(&message);
        }
    }
}
