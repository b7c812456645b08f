//! What `replication.shard` asks of other sections.

use super::Config;
use super::section::Section;
use crate::outbox::ShardColumns;
use crate::template::Template;

/// Reports what does not go together with several relays on one table.
pub(super) fn check(root: &mut Section<'_>, config: &Config) {
    let (replication, outbox) = (&config.replication, &config.outbox);
    if !replication.shard.is_sharded() {
        return;
    }
    // A template that is none was reported where it was read.
    let (Ok(key), Ok(destination)) =
        (Template::parse(&outbox.key), Template::parse(&outbox.destination))
    else {
        return;
    };
    if let Err(error) = ShardColumns::of(&outbox.layout_kind(), &key, &destination) {
        root.problem(error.path(), error.to_string());
    }
}
