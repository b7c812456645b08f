//! Bodies and destinations beside those of the real django-outbox-pattern: the same models, the same `save()`.

use serde_json::Value;
use walpost_testkit::python;

use super::database;

/// What the decorators of `testkit/py/predecessor.py` say, in SQL.
const CALLS: &str = "
    CREATE FUNCTION my_serializer(with_serializer) RETURNS jsonb LANGUAGE sql AS
        $$ SELECT jsonb_build_object('id', $1.id, 'one', $1.field_one, 'two', $1.field_two) $$;
    CREATE FUNCTION my_serializer_1(many_serializers) RETURNS jsonb LANGUAGE sql AS
        $$ SELECT jsonb_build_object('id', $1.id, 'one', $1.field_one) $$;
    CREATE FUNCTION my_serializer_2(many_serializers) RETURNS jsonb LANGUAGE sql AS
        $$ SELECT jsonb_build_object('id', $1.id, 'two', $1.field_two) $$;
    SELECT walpost.publish_on('only_destination', '/topic/my_route_key');
    SELECT walpost.publish_on('with_fields', '/topic/my_route_key', fields => '{field_one}');
    SELECT walpost.publish_on('with_serializer', '/topic/my_route_key', serializer => 'my_serializer');
    SELECT walpost.publish_on('many_serializers', '/topic/my_route_key_1', serializer => 'my_serializer_1');
    SELECT walpost.publish_on('many_serializers', '/topic/my_route_key_2', serializer => 'my_serializer_2');
    SELECT walpost.publish_on('other_version', '/queue/versions', fields => '{}', version => 'v2');
    SELECT walpost.publish_on('values_of_all_types', '/queue/values');
    SELECT walpost.publish_on('arrays', '/queue/arrays')";

/// The examples of its README, each saved twice.
const EXAMPLES: [(&str, &str); 5] = [
    ("/topic/my_route_key.v1", r#"{"id": 1, "field_one": "Field One", "field_two": "Field Two"}"#),
    ("/topic/my_route_key.v1", r#"{"id": 1, "field_one": "Field One"}"#),
    ("/topic/my_route_key.v1", r#"{"id": 1, "one": "Field One", "two": "Field Two"}"#),
    ("/topic/my_route_key_1.v1", r#"{"id": 1, "one": "Field One"}"#),
    ("/topic/my_route_key_2.v1", r#"{"id": 1, "two": "Field Two"}"#),
];

#[test]
fn bodies_and_destinations_are_those_of_the_predecessor() {
    let database = database();
    python::predecessor(&database.url(), "create");
    database.sql(CALLS);
    python::predecessor(&database.url(), "save");
    let messages = |sql: &str| -> Vec<(String, Value)> {
        let rows = database.sql(sql);
        let pairs = rows.lines().map(|line| line.split_once('|').unwrap());
        pairs.map(|(to, body)| (to.to_owned(), serde_json::from_str(body).unwrap())).collect()
    };
    let theirs = messages("SELECT destination, body FROM published ORDER BY added");
    let ours = messages(
        "SELECT destination || '.' || version, body FROM walpost.outbox ORDER BY created_at",
    );
    assert_eq!((theirs.len(), ours.len()), (16, 16));

    let mut expected: Vec<(String, Value)> = Vec::new();
    for example in [&EXAMPLES[..1], &EXAMPLES[1..2], &EXAMPLES[2..3], &EXAMPLES[3..]] {
        let parsed =
            |(to, body): &(&str, &str)| ((*to).to_owned(), serde_json::from_str(body).unwrap());
        // An update that changes nothing is published, too.
        expected.extend(example.iter().chain(example).map(parsed));
    }
    assert_eq!(theirs[..10], expected);
    for (theirs, ours) in theirs[..15].iter().zip(&ours) {
        assert_eq!(ours, theirs);
    }

    // Its arrays are texts with JSON in them, whose members are texts, too.
    let (theirs, ours) = (&theirs[15].1, &ours[15].1);
    assert_eq!(ours["id"], theirs["id"]);
    for field in ["words", "prices"] {
        let text = theirs[field].as_str().unwrap();
        assert_eq!(ours[field], serde_json::from_str::<Value>(text).unwrap());
    }
    assert_eq!(ours["times"], serde_json::json!(["2026-01-31T12:00:00.500Z"]));
}
