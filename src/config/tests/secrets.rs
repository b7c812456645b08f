//! Secrets: where they may stand, and that they never show.

use std::fs;

use super::*;

/// A folder with a file of that text; gives the file's path, too.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_twin_names_a_file() {
    let (_folder, path) = file("hunter2\n");
    let config =
        config(&format!("broker: {{passcode_file: {path}}}\npostgres: {{password_file: {path}}}"));
    assert_eq!(config.broker.passcode.expose(), "hunter2");
    assert_eq!(config.postgres.url.password().unwrap().expose(), "hunter2");

    let (_folder, path) = file("postgresql://u:p@db:1/d\r\n");
    let url = loaded("", &[("WALPOST__POSTGRES__URL_FILE", &path)]).config.postgres.url;
    assert_eq!(url.to_string(), "postgresql://u:***@db:1/d");
}

#[test]
fn one_newline_at_the_end_is_not_part_of_the_secret() {
    for (text, secret) in
        [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a \n", " a ")]
    {
        let (_folder, path) = file(text);
        let found = config(&format!("broker: {{passcode_file: {path}}}")).broker.passcode;
        assert_eq!(found.expose(), secret, "{text:?}");
    }
}

#[test]
fn the_password_file_wins_over_the_url() {
    let (_folder, path) = file("from-file");
    let yaml = format!("postgres: {{url: 'postgresql://u:from-url@h/d', password_file: {path}}}");
    let url = config(&yaml).postgres.url;
    assert_eq!(url.password().unwrap().expose(), "from-file");
    assert_eq!(url.client().get_password(), Some(b"from-file".as_slice()));
}

#[test]
fn the_stronger_source_wins_and_two_equal_ones_are_a_problem() {
    let (_folder, path) = file("from-file");
    let passcode = |yaml: &str, variables: &[(&str, &str)]| {
        loaded(yaml, variables).config.broker.passcode.expose().to_owned()
    };
    assert_eq!(
        passcode("broker: {passcode: x}", &[("WALPOST__BROKER__PASSCODE_FILE", &path)]),
        "from-file"
    );
    assert_eq!(
        passcode(
            &format!("broker: {{passcode_file: {path}}}"),
            &[("WALPOST__BROKER__PASSCODE", "x")]
        ),
        "x"
    );
    assert_eq!(
        passcode(&format!("broker: {{passcode: , passcode_file: {path}}}"), &[]),
        "from-file"
    );
    assert_eq!(
        refused("broker:\n  passcode: x\n  passcode_file: y\n", &[]),
        [
            "broker.passcode_file: stands beside passcode (walpost.yaml:2); keep one of the two (walpost.yaml:3)"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_with_its_path() {
    assert_eq!(
        refused("broker: {passcode_file: /nowhere/x}", &[]),
        [
            "broker.passcode_file: cannot read '/nowhere/x': No such file or directory (os error 2) (walpost.yaml:1)"
        ]
    );
    let (_folder, path) = file("\n");
    assert_eq!(
        refused("", &[("WALPOST__POSTGRES__PASSWORD_FILE", &path)]),
        [format!(
            "postgres.password_file: the file '{path}' is empty (WALPOST__POSTGRES__PASSWORD_FILE)"
        )]
    );
    let (_folder, path) = file(&"x".repeat(65_537));
    assert!(
        refused("", &[("WALPOST__BROKER__PASSCODE_FILE", &path)])[0].contains("longer than 64 KiB")
    );
}

#[test]
fn a_url_is_shown_without_its_password() {
    let shown =
        |url: &str| loaded("", &[("WALPOST__POSTGRES__URL", url)]).config.postgres.url.to_string();
    assert_eq!(
        shown("postgres://me:s%40cret@a:1,b:2/app?application_name=x"),
        "postgresql://me:***@a:1,b:2/app"
    );
    assert_eq!(
        shown("host=a,b port=6432 user=me password='s cret'"),
        "postgresql://me:***@a:6432,b:6432/me"
    );
    assert_eq!(shown("postgresql://me@[::1]:5433/app"), "postgresql://me@[::1]:5433/app");
    assert_eq!(
        shown("postgresql://me@%2Frun%2Fpostgresql/app"),
        "postgresql://me@%2Frun%2Fpostgresql:5432/app"
    );
}

#[test]
fn a_url_that_is_none_is_a_problem_without_its_text() {
    let refused = |url: &str| refused("", &[("WALPOST__POSTGRES__URL", url)]).join("\n");
    for (url, words) in [
        ("postgresql://u:hunt@er2@h/d", "no name and no address"),
        ("postgresql://u:@%/hunter2@h/d", "a database name with / @ or : in it"),
        ("postgresql://u:hunter2@h:x/d", "invalid value for option `port`"),
        ("postgresql://u:hunter2@/d", "names no host"),
        ("postgresql://h/d", "names no user"),
        ("u=hunter2", "is no connection URL"),
        ("hunter2", "is no connection URL"),
        ("", "names no host"),
        ("postgresql://u:hunter2@a,b,c/d?hunter2=1", "is no connection URL"),
        ("postgresql://u:hunter2@a/d?hostaddr=10.0.0.1", "hostaddr"),
        (
            "postgresql://u:hunter2@a/d?sslmode=verify-full",
            "use postgres.tls.mode in place of 'sslmode'",
        ),
        (
            "postgresql://u:hunter2@a/d?sslrootcert=x",
            "use postgres.tls.ca_file in place of 'sslrootcert'",
        ),
    ] {
        let problem = refused(url);
        assert!(problem.contains(words), "{url}: {problem}");
        assert!(problem.starts_with("postgres.url: ") && !problem.contains("er2"), "{problem}");
    }
}

/// Long and strange enough that no other text contains it by chance.
fn secret() -> impl Strategy<Value = String> {
    "[A-Za-z0-9:/@#?%& '\"{}\\[\\],.=*!-]{0,12}Zq7[A-Za-z0-9]{4,8}"
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

proptest! {
    #[test]
    fn no_secret_shows_by_any_road(secret in secret(), good: bool) {
        let tail = secret[secret.find("Zq7").unwrap()..].to_owned();
        let (_folder, path) = file(&secret);
        let quoted = serde_json::Value::from(secret.as_str()).to_string();
        let slot = if good { "walpost" } else { "NO SLOT" };
        let head = format!("replication: {{slot: {slot}}}\n");
        let by_file = format!("{head}broker: {{passcode: {quoted}}}\npostgres: {{url: 'postgresql://u:{}@h/d'}}", percent_encoded(&secret));
        let by_twin = format!("{head}broker: {{passcode_file: {path}}}\npostgres: {{password_file: {path}}}");
        let plain_url = format!("postgresql://u:{secret}@h/d");
        let words = format!("host=h user=u password={secret}");
        let host = format!("u:{secret}@h:61613");
        let roads: [(&str, Vec<(&str, &str)>); 8] = [
            (&by_file, vec![]),
            (&by_twin, vec![]),
            (&head, vec![("WALPOST__BROKER__PASSCODE", &secret)]),
            (&head, vec![("WALPOST__POSTGRES__URL", &plain_url)]),
            (&head, vec![("WALPOST__POSTGRES__URL", &words)]),
            (&head, vec![("WALPOST__BROKER__TLS__KEY_PASSWORD", &secret)]),
            (&head, vec![("WALPOST__BROKER__HOSTS", &host)]),
            (&head, vec![("WALPOST__HTTP__LISTEN", &host)]),
        ];
        for (yaml, variables) in roads {
            let shown = match load(given(yaml, &variables)) {
                Ok(loaded) => format!("{}{loaded:?}{:#?}", loaded.show(), loaded.config),
                Err(error) => format!("{error}{error:?}"),
            };
            prop_assert!(!shown.contains(&tail), "{variables:?}: {shown}");
        }
    }
}
