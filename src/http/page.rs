//! The page for people: one file, no outside requests, fed by `/status.json`.

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");

/// Its Content-Security-Policy. The two hashes are of the page's `<style>` and `<script>`; a test
/// holds them to it and prints the right ones when the page was edited.
pub(super) const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     style-src 'sha256-fxVEERPxEugMrTBMHlegvj7oHsNjT02YE8AANWWB5R0='; script-src 'sha256-GjQZBE+lTw9VMZ94PW9EqCGwuE+5xk9rFsgEM9vjNFA='";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn hash_of(tag: &str) -> String {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let (_, rest) = PAGE.split_once(&open).unwrap();
        let (inner, rest) = rest.split_once(&close).unwrap();
        assert!(!rest.contains(&open), "one <{tag}> only");
        format!("{tag}-src 'sha256-{}'", STANDARD.encode(Sha256::digest(inner)))
    }

    #[test]
    fn the_policy_allows_the_pages_own_style_and_script_only() {
        let expected = format!("{}; {}", hash_of("style"), hash_of("script"));
        assert!(POLICY.ends_with(&expected), "POLICY must end with\n{expected}");
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for outside in ["http://", "https://", "src=\"//", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
