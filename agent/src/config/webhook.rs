//! `[[webhook]]`: who is told of events.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tables::Named;
use crate::events::{Event, EventKind, Record, Word};

/// What may stand in a template as `${name}`.
const PLACES: [&str; 9] = ["node", "number", "time", "kind", "reason", "workload", "pod", "container", "message"];

/// A receiver of events, as configured. It never holds a credential, only the names of files with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its name here: a label in metrics and log lines.
    pub name: String,
    /// Where events are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// File with the URL, or `credential:NAME`: that of many chats is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Which events: `warning`, `normal`, or reasons such as `rolled_back`.
    #[serde(default = "warnings")]
    pub events: Vec<String>,
    /// The body, with `${workload}` and the like; each value is escaped for a JSON string. All fields without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// File with one more header, `Name: value`, or `credential:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_file: Option<PathBuf>,
}

fn warnings() -> Vec<String> {
    vec![EventKind::Warning.word().to_owned()]
}

impl Webhook {
    /// Whether it is to be told of this event.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        self.events.iter().any(|word| word == event.kind.word() || *word == event.reason)
    }

    /// What is sent for an event.
    #[must_use]
    pub fn body(&self, node: &str, record: &Record) -> String {
        let event = &record.event;
        let number = record.number.to_string();
        let time = event.unix_millis.div_euclid(1000).to_string();
        let value = |place: &str| match place {
            "node" => node,
            "number" => &number,
            "time" => &time,
            "kind" => event.kind.word(),
            "reason" => &event.reason,
            "workload" => event.workload.as_deref().unwrap_or_default(),
            "pod" => event.pod.as_deref().unwrap_or_default(),
            "container" => event.container.as_deref().unwrap_or_default(),
            _ => &event.message,
        };
        let Some(template) = &self.template else {
            let fields = PLACES.iter().map(|place| ((*place).to_owned(), value(place).into()));
            return serde_json::Value::Object(fields.collect()).to_string();
        };
        // One way through, so that what an event says is never taken for a place.
        let (mut body, mut rest) = (String::new(), template.as_str());
        while let Some((before, after)) = rest.split_once("${") {
            body.push_str(before);
            let (place, behind) = after.split_once('}').unwrap_or((after, ""));
            let quoted = serde_json::Value::from(value(place)).to_string();
            body.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
            rest = behind;
        }
        body.push_str(rest);
        body
    }
}

impl Named for Webhook {
    const KEY: &'static str = "webhook";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let about = |message: &str| Err(message.to_owned());
        match (&self.url, &self.url_file) {
            (Some(_), Some(_)) | (None, None) => return about("give either `url` or `url_file`"),
            (Some(url), None) => {
                let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                let host = host.and_then(|rest| rest.split('/').next()).unwrap_or_default();
                if host.is_empty() || host.contains('@') {
                    return about("expected a URL such as https://host/path, without credentials in it");
                }
            }
            (None, Some(_)) => {}
        }
        for file in self.url_file.iter().chain(&self.header_file) {
            if !crate::credential::is_valid(file) {
                return about("expected an absolute path or credential:NAME for a file");
            }
        }
        if self.events.is_empty() {
            return about("`events` is empty, so nothing would ever be sent: leave it out for all warnings");
        }
        let known = || [EventKind::Warning, EventKind::Normal].map(EventKind::word).into_iter().chain(Word::all());
        if let Some(wrong) = self.events.iter().find(|word| known().all(|known| known != *word)) {
            return Err(match super::nearest(wrong, known()) {
                Some(close) => format!("`{wrong}` is no event, did you mean `{close}`?"),
                None => {
                    format!("`{wrong}` is no event: expected `warning`, `normal`, or a reason of `mainstay events`")
                }
            });
        }
        let mut rest = self.template.as_deref().unwrap_or_default();
        while let Some((_, after)) = rest.split_once("${") {
            match after.split_once('}') {
                Some((place, behind)) if PLACES.contains(&place) => rest = behind,
                Some((place, _)) => return about(&format!("`${{{place}}}` is none of {}", PLACES.join(", "))),
                None => return about("a `${` of the template has no `}`"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::read;
    use super::super::values::Input;
    use super::Webhook;

    #[test]
    fn what_is_a_webhook() {
        let check = |fields: &str, want: Option<&str>| {
            let read = read::<Webhook>(Input::Text(&format!("[{{ {fields} }}]")));
            match (read, want) {
                (Ok(_), None) => {}
                (Err(error), Some(want)) => assert!(error.contains(want), "{fields}: {error}"),
                (read, want) => panic!("{fields}: {read:?} instead of {want:?}"),
            }
        };
        check("name='a', url='https://host/x'", None);
        check("name='a', url_file='credential:chat', events=['warning', 'held']", None);
        check("name='a', url='http://10.0.0.1:8080/', template='{\"t\": \"${message}\"}'", None);
        check("name='a', url='https://h', events=['normal', 'rolled_back', 'pull_failed', 'spec_changed']", None);
        let close = "`rolledback` is no event, did you mean `rolled_back`?";
        check("name='a', url='https://h', events=['warning', 'rolledback']", Some(close));
        check("name='a', url='https://h', events=['Warning']", Some("did you mean `warning`?"));
        check("name='a', url='https://h', events=['everything']", Some("is no event: expected `warning`"));
        check("name='a', url='https://h', events=[]", Some("nothing would ever be sent"));
        check("name='a'", Some("either `url` or `url_file`"));
        check("name='a', url='https://h', url_file='/f'", Some("either"));
        check("name='a', url='https://me:secret@h/'", Some("without credentials"));
        check("name='a', url='ftp://h/'", Some("expected a URL"));
        check("name='A', url='https://h'", Some("expected a name"));
        check("name='a', url_file='f'", Some("absolute path"));
        check("name='a', url='https://h', template='${mesage}'", Some("none of node"));
        check("name='a', url='https://h', template='${message'", Some("no `}`"));
        check("name='a', url='https://h', tempalte=''", Some("unknown field"));
        check("name='a', url='https://h' }, { name='a', url='https://i'", Some("twice"));
    }
}
