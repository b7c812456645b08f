//! From a tuple to a message, or to the reason why it is none.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::emitted::Emitted;
use super::hash::key_hash;
use super::headers::{Plan, RowPart};
use super::layout::{Layout, Role};
use super::message::{Body, Draft, Message, TableId};
use super::row_headers::RowHeaders;
use super::time::TimeText;
use super::unfit::UnfitReason;
use super::{Context, Dropped};
use crate::lsn::Lsn;
use crate::pgoutput::{Tuple, Value};
use crate::template::{Field, Template, Values};

/// A scratch text larger than this is given back after the row that needed it.
const KEPT: usize = 64 << 10;

/// What all rows of all tables are mapped by.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) destination: Template,
    pub(super) key: Template,
    /// The same two for emitted messages.
    pub(super) emitted: (Template, Template),
    pub(super) headers: Plan,
    pub(super) max_frame_size: usize,
    /// Whether a template asks for what only [`Texts`] knows.
    pub(super) transaction_in_templates: bool,
}

/// Texts and tables that each row uses anew.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    draft: Draft,
    own: RowHeaders,
    texts: Texts,
}

/// The context of a row as text, kept from row to row.
#[derive(Debug, Default)]
struct Texts {
    now: TimeText,
    commit_time: TimeText,
    lsn: (Lsn, String),
    xid: (u32, String),
}

/// The values of a tuple by what they are for.
pub(super) type Fields<'a> = [Value<'a>; Role::COUNT];

/// Sorts `values` by role; `None` where there are more or fewer than the layout has columns.
pub(super) fn fields<'a>(layout: &Layout, tuple: &Tuple<'a>) -> Option<Fields<'a>> {
    let mut fields = [Value::Null; Role::COUNT];
    let mut values = tuple.values();
    for &roles in &layout.roles {
        place(&mut fields, roles, values.next()?);
    }
    values.next().is_none().then_some(fields)
}

/// The same for the leading values of a row that was not read as a whole: what did not come is
/// taken for not sent.
pub(super) fn leading_fields<'a>(layout: &Layout, values: &[Value<'a>]) -> Fields<'a> {
    let mut fields = [Value::Unchanged; Role::COUNT];
    for (&roles, &value) in layout.roles.iter().zip(values) {
        place(&mut fields, roles, value);
    }
    fields
}

fn place<'a>(fields: &mut Fields<'a>, roles: u16, value: Value<'a>) {
    let mut left = roles;
    while left != 0 {
        if let Some(field) = fields.get_mut(left.trailing_zeros() as usize) {
            *field = value;
        }
        left &= left - 1;
    }
}

/// Layout `django`: what django-outbox-pattern would publish. Any other value, null too, is not for us.
/// A value that did not come is for us: better unfit than skipped unseen.
pub(super) fn is_scheduled(fields: &Fields<'_>) -> bool {
    match fields[Role::Status.index()] {
        Value::Text(status) => status == b"1",
        Value::Null => false,
        Value::Unchanged | Value::Binary(_) => true,
    }
}

/// The id of a row, for a report about it.
pub(super) fn id_for_report(fields: &Fields<'_>) -> Option<String> {
    match fields[Role::Id.index()] {
        Value::Text(bytes) if !bytes.is_empty() => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        _ => None,
    }
}

/// Makes a message of the row.
pub(super) fn compose(
    rules: &Rules,
    layout: &Layout,
    tuple: &Tuple<'_>,
    fields: &Fields<'_>,
    context: &Context,
    scratch: &mut Scratch,
) -> Result<(Message, Dropped), UnfitReason> {
    let Scratch { draft, own, texts } = scratch;
    draft.start("");
    texts.set(context, rules.transaction_in_templates);
    let text = |role: Role| text(fields[role.index()], layout.column(role));
    let values = RowValues {
        id: text(Role::Id)?.unwrap_or_default(),
        destination: text(Role::Destination)?,
        version: text(Role::Version)?,
        key: text(Role::Key)?,
        columns: Some((layout, tuple)),
        texts,
    };
    check_extra(layout, tuple)?;
    let rest = Rest {
        body: body(layout, fields),
        headers: text(Role::Headers),
        content_type: text(Role::ContentType),
        table: layout.table_id,
    };
    write(rules, (&rules.destination, &rules.key), &values, rest, draft, own)
}

/// Makes a message of what `walpost.emit` wrote.
pub(super) fn compose_emitted(
    rules: &Rules,
    emitted: &Emitted<'_>,
    context: &Context,
    scratch: &mut Scratch,
) -> Result<(Message, Dropped), UnfitReason> {
    let Scratch { draft, own, texts } = scratch;
    draft.start("");
    texts.set(context, rules.transaction_in_templates);
    let values = RowValues {
        id: emitted.id(),
        destination: Some(emitted.destination()),
        version: emitted.version(),
        key: emitted.key(),
        columns: None,
        texts,
    };
    let rest = Rest {
        body: Ok((Body::Raw(emitted.body()), emitted.is_binary())),
        headers: Ok(emitted.headers()),
        content_type: Ok(None),
        table: None,
    };
    write(rules, (&rules.emitted.0, &rules.emitted.1), &values, rest, draft, own)
}

/// What of a row no template sees.
struct Rest<'a> {
    /// And whether it is a `bytea`.
    body: Result<(Body<'a>, bool), UnfitReason>,
    headers: Result<Option<&'a str>, UnfitReason>,
    content_type: Result<Option<&'a str>, UnfitReason>,
    table: Option<TableId>,
}

fn write(
    rules: &Rules,
    (destination, key): (&Template, &Template),
    values: &RowValues<'_>,
    rest: Rest<'_>,
    draft: &mut Draft,
    own: &mut RowHeaders,
) -> Result<(Message, Dropped), UnfitReason> {
    if values.id.is_empty() {
        return Err(UnfitReason::NoId);
    }
    draft.start(values.id);
    destination.render(values, &mut draft.text);
    if draft.end_destination().is_empty() {
        return Err(UnfitReason::NoDestination);
    }
    key.render(values, &mut draft.text);
    let hash = key_hash(draft.end_key().as_bytes());

    let (body, binary) = rest.body?;
    own.clear();
    let read = match rest.headers {
        Ok(None | Some("{}")) => Ok(()),
        Ok(Some(json)) => own.read(json),
        Err(reason) => Err(reason),
    };
    let content_type = rest.content_type;
    if read.is_err() {
        own.clear();
    }
    let row = RowPart {
        id: values.id,
        own,
        content_type: content_type.as_ref().ok().copied().flatten().filter(|text| !text.is_empty()),
        binary,
        sent_time: values.texts.now.as_str(),
        values,
    };
    rules.headers.write(draft, &row);
    // Only now: what is kept of it has all headers but its own.
    read?;
    content_type?;
    let message = draft.finish(hash, rest.table, body, rules.max_frame_size)?;
    Ok((message, Dropped(own.dropped())))
}

/// What there is of a message that could not be made.
pub(super) fn salvage(layout: &Layout, fields: &Fields<'_>, scratch: &mut Scratch) -> Message {
    let draft = &mut scratch.draft;
    if draft.id_end == 0 {
        draft.start(&id_for_report(fields).unwrap_or_default());
        draft.end_destination();
        draft.end_key();
    }
    draft.salvage(layout.table_id, body(layout, fields).ok().map(|(body, _)| body))
}

/// What there is of an emitted message that could not be made: its body, or, where it could not be read, its
/// whole content.
pub(super) fn salvage_emitted(
    emitted: Option<&Emitted<'_>>,
    content: &[u8],
    scratch: &mut Scratch,
) -> Message {
    let draft = &mut scratch.draft;
    if draft.id_end == 0 {
        draft.start(emitted.map(Emitted::id).unwrap_or_default());
        draft.end_destination();
        draft.end_key();
    }
    draft.salvage(None, Some(Body::Raw(emitted.map_or(content, Emitted::body))))
}

/// A value as text; `None` where it is null.
fn text<'a>(value: Value<'a>, column: &str) -> Result<Option<&'a str>, UnfitReason> {
    match bytes(value, column)? {
        None => Ok(None),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(UnfitReason::NotUtf8 { column: column.to_owned() }),
        },
    }
}

/// A value as PostgreSQL prints it; `None` where it is null.
fn bytes<'a>(value: Value<'a>, column: &str) -> Result<Option<&'a [u8]>, UnfitReason> {
    match value {
        Value::Null => Ok(None),
        Value::Text(bytes) => Ok(Some(bytes)),
        Value::Unchanged => Err(UnfitReason::NotSent { column: column.to_owned() }),
        Value::Binary(_) => Err(UnfitReason::Binary { column: column.to_owned() }),
    }
}

/// The body, and whether it is a `bytea`. No body is an empty one.
fn body<'a>(layout: &'a Layout, fields: &Fields<'a>) -> Result<(Body<'a>, bool), UnfitReason> {
    let of = |role: Role| bytes(fields[role.index()], layout.column(role));
    let (role, bytes) = match (of(Role::Body)?, of(Role::BodyBytes)?) {
        (None, None) => return Ok((Body::Raw(&[]), false)),
        (Some(bytes), None) => (Role::Body, bytes),
        (None, Some(bytes)) => (Role::BodyBytes, bytes),
        (Some(_), Some(_)) => {
            return Err(UnfitReason::TwoBodies {
                text: layout.column(Role::Body).to_owned(),
                bytes: layout.column(Role::BodyBytes).to_owned(),
            });
        }
    };
    if layout.is_bytea(role) {
        Ok((Body::Hex(bytes, layout.column(role)), true))
    } else {
        Ok((Body::Raw(bytes), false))
    }
}

/// Checks the columns that templates name, so that the templates need not.
fn check_extra(layout: &Layout, tuple: &Tuple<'_>) -> Result<(), UnfitReason> {
    for (name, place) in &layout.extra {
        if let Some(value) = tuple.values().nth(*place) {
            text(value, name)?;
        }
    }
    Ok(())
}

/// A row as templates see it.
struct RowValues<'a> {
    id: &'a str,
    destination: Option<&'a str>,
    version: Option<&'a str>,
    key: Option<&'a str>,
    /// None: it is no row of a table.
    columns: Option<(&'a Layout, &'a Tuple<'a>)>,
    texts: &'a Texts,
}

impl RowValues<'_> {
    /// A column that a template names. [`check_extra`] has seen that it is text.
    fn column(&self, name: &str) -> Option<&str> {
        let (layout, tuple) = self.columns?;
        let (_, place) = layout.extra.iter().find(|(known, _)| known == name)?;
        text(tuple.values().nth(*place)?, name).ok()?
    }
}

impl Values for RowValues<'_> {
    fn value(&self, field: Field<'_>) -> Option<Cow<'_, str>> {
        let text = match field {
            Field::Id => Some(self.id),
            Field::Destination => self.destination,
            Field::Version => self.version,
            Field::Key => self.key,
            Field::Lsn => Some(self.texts.lsn.1.as_str()),
            Field::Xid => Some(self.texts.xid.1.as_str()),
            Field::CommitTime => Some(self.texts.commit_time.as_str()),
            Field::Now => Some(self.texts.now.as_str()),
            Field::Column(name) => self.column(name),
        };
        text.map(Cow::Borrowed)
    }
}

impl Texts {
    fn set(&mut self, context: &Context, transaction: bool) {
        self.now.set(context.now);
        if !transaction {
            return;
        }
        self.commit_time.set(context.commit_time);
        refresh(&mut self.lsn, context.commit_lsn);
        refresh(&mut self.xid, context.xid);
    }
}

/// Prints a value anew if it is not the one that was printed last.
fn refresh<T: PartialEq + std::fmt::Display>((known, text): &mut (T, String), value: T) {
    if *known != value || text.is_empty() {
        text.clear();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value}");
        *known = value;
    }
}

impl Scratch {
    /// Nothing is left of the last row.
    pub(super) fn clear(&mut self) {
        self.draft.start("");
    }

    /// Gives back what a huge row has left behind.
    pub(super) fn shrink(&mut self) {
        if self.draft.text.capacity() > KEPT {
            self.draft.text.clear();
            self.draft.text.shrink_to(KEPT);
        }
        self.own.shrink(KEPT);
    }
}

#[cfg(test)]
impl Scratch {
    /// Bytes that are kept from row to row.
    pub(super) fn capacity(&self) -> usize {
        self.draft.text.capacity() + self.own.capacity()
    }
}
