//! The headers that the settings give every message, and their merging with the row's own.

use super::message::Draft;
use super::row_headers::RowHeaders;
use super::settings::{HeaderStyle, Settings, SettingsError};
use super::unfit::Shown;
use crate::template::{Template, Values};

/// The header that says what the body is.
const CONTENT_TYPE: &str = "content-type";

/// Whether a header is walpost's own: a row that set it would break the frame, its receipt, or a
/// broker's trust in us. STOMP's names are case-sensitive, so only this spelling is meant.
pub(super) fn is_forbidden(name: &str) -> bool {
    matches!(
        name,
        "destination" | "receipt" | "transaction" | "content-length" | "id" | "ack" | "message-id"
    )
}

/// The headers of the settings, merged once: `outbox.headers` over the style over
/// `broker.headers`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    content_type: ContentType,
    fixed: Vec<(String, Source)>,
}

/// Where the content type comes from if the row does not say it.
#[derive(Clone, Debug)]
enum ContentType {
    Template(Template),
    Literal(String),
    /// By the body.
    Default,
}

/// Where a header's value comes from.
#[derive(Clone, Debug)]
enum Source {
    Literal(String),
    Id,
    Destination,
    SentTime,
    Template(Template),
}

/// What a row has to say about its headers.
pub(super) struct RowPart<'a, V> {
    /// The message id.
    pub(super) id: &'a str,
    /// Its own headers.
    pub(super) own: &'a RowHeaders,
    /// Its content type, where a column has one.
    pub(super) content_type: Option<&'a str>,
    /// Whether the body comes out of a `bytea`.
    pub(super) binary: bool,
    /// The time for `msg-sent-time`.
    pub(super) sent_time: &'a str,
    /// For templates.
    pub(super) values: &'a V,
}

impl Plan {
    pub(super) fn new(settings: &Settings) -> Result<Plan, SettingsError> {
        let own = settings.headers.iter().map(|(name, _)| name.as_str());
        check("outbox.headers", own)?;
        let broker = settings.broker_headers.iter();
        check("broker.headers", broker.clone().map(|(name, _)| name.as_str()))?;
        if let Some((name, _)) = broker.clone().find(|(_, value)| value.contains('\0')) {
            return Err(unsendable("broker.headers", name));
        }
        if settings.content_type.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(unsendable("outbox.content_type", CONTENT_TYPE));
        }

        let mut fixed = style(settings.header_style);
        for (name, template) in &settings.headers {
            let source = match template.literal() {
                Some(text) => Source::Literal(text.to_owned()),
                None => Source::Template(template.clone()),
            };
            match fixed.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = source,
                None => fixed.push((name.clone(), source)),
            }
        }
        for (name, value) in &settings.broker_headers {
            if !fixed.iter().any(|(known, _)| known == name) {
                fixed.push((name.clone(), Source::Literal(value.clone())));
            }
        }
        let content_type = content_type(settings);
        // An empty one takes a header away; the content type is written apart.
        fixed.retain(|(name, source)| {
            name != CONTENT_TYPE && !matches!(source, Source::Literal(text) if text.is_empty())
        });
        Ok(Plan { content_type, fixed })
    }

    /// Appends the headers of one row, each name once, the content type first.
    pub(super) fn write<V: Values>(&self, draft: &mut Draft, row: &RowPart<'_, V>) {
        self.write_content_type(draft, row);
        for (name, source) in &self.fixed {
            if row.own.get(name).is_some() {
                continue;
            }
            match source {
                Source::Literal(text) => draft.header(name, text),
                Source::Id => draft.header(name, row.id),
                Source::Destination => draft.header_destination(name),
                Source::SentTime => draft.header(name, row.sent_time),
                Source::Template(template) => {
                    draft.header_with(name, false, |text| template.render(row.values, text));
                }
            }
        }
        for (name, value) in row.own.iter().filter(|&(name, _)| name != CONTENT_TYPE) {
            draft.header(name, value);
        }
    }

    fn write_content_type<V: Values>(&self, draft: &mut Draft, row: &RowPart<'_, V>) {
        let by_body = if row.binary { "application/octet-stream" } else { "application/json" };
        if let Some(text) = row.own.get(CONTENT_TYPE) {
            draft.header(CONTENT_TYPE, text);
        } else if let Some(text) = row.content_type {
            draft.header(CONTENT_TYPE, text);
        } else {
            match &self.content_type {
                ContentType::Template(template) => {
                    draft.header_with(CONTENT_TYPE, false, |text| {
                        template.render(row.values, text);
                    });
                }
                ContentType::Literal(literal) => {
                    draft.header_with(CONTENT_TYPE, false, |text| text.push_str(literal));
                }
                ContentType::Default => draft.header(CONTENT_TYPE, by_body),
            }
        }
    }
}

/// `outbox.headers` over `outbox.content_type` over `broker.headers`.
fn content_type(settings: &Settings) -> ContentType {
    let own = settings.headers.iter().find(|(name, _)| name == CONTENT_TYPE);
    let broker = settings.broker_headers.iter().find(|(name, _)| name == CONTENT_TYPE);
    match (own, &settings.content_type, broker) {
        (Some((_, template)), _, _) => ContentType::Template(template.clone()),
        (None, Some(text), _) | (None, None, Some((_, text))) => ContentType::Literal(text.clone()),
        (None, None, None) => ContentType::Default,
    }
}

/// The headers of django-outbox-pattern: those of its version 0.7.0, or those since 2.x, where the id also
/// serves as correlation id.
fn style(style: HeaderStyle) -> Vec<(String, Source)> {
    let prefix = match style {
        HeaderStyle::Msg => "msg",
        HeaderStyle::Dop => "dop-msg",
        HeaderStyle::None => return Vec::new(),
    };
    let mut headers = vec![
        (format!("{prefix}-id"), Source::Id),
        (format!("{prefix}-destination"), Source::Destination),
        (format!("{prefix}-type"), Source::Literal("Published".to_owned())),
        (format!("{prefix}-sent-time"), Source::SentTime),
    ];
    if style == HeaderStyle::Dop {
        headers.push(("dop-correlation-id".to_owned(), Source::Id));
    }
    headers
}

fn check<'a>(
    path: &'static str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), SettingsError> {
    for (index, name) in names.clone().enumerate() {
        if name.is_empty() || name.contains('\0') {
            return Err(unsendable(path, name));
        }
        if is_forbidden(name) {
            return Err(SettingsError::Forbidden { path, name: name.to_owned() });
        }
        if names.clone().take(index).any(|earlier| earlier == name) {
            return Err(SettingsError::Twice { path, name: Shown(name).to_string() });
        }
    }
    Ok(())
}

fn unsendable(path: &'static str, name: &str) -> SettingsError {
    SettingsError::Header { path, name: Shown(name).to_string() }
}
