//! What is done to every report before anything of it is kept: secrets are dropped, sizes bounded. The one place for it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    bound::{MOST_AHEAD, bound, bound_option, bound_time, replace},
    cell::MAX_CELL,
    container::{ContainerEvent, ContainerKey, Details, Report},
    redact::Redaction,
    time::Nanos,
};

const LONGEST_ID: usize = 128;
const LONGEST_NAME: usize = 4096;
/// Most labels or attributes of one report.
const MOST_ENTRIES: usize = 1024;
const MOST_ADDRESSES: usize = 64;

/// The attribute that keeps the time that an event was told with, where that cannot be.
const REPORTED_TIME: &str = "reported_time_ns";

/// The time that an event was told with.
pub(super) fn reported_time(event: &ContainerEvent) -> Nanos {
    event.attributes.get(REPORTED_TIME).and_then(|told| told.parse().ok()).unwrap_or(event.time_ns)
}

/// `now_ns`: when the report was taken. What is told of a time that is still to come is not believed.
pub(super) fn report(report: &mut Report, redaction: &Redaction, now_ns: Nanos) {
    match report {
        Report::Event(event) => {
            if let Some(told) = bound_time(&mut event.time_ns, now_ns) {
                event.attributes.insert(REPORTED_TIME.to_owned(), told.to_string());
            }
            bound_key(&mut event.key);
            bound_option(&mut event.exec_id, LONGEST_ID);
            clean_map(&mut event.attributes, redaction);
            clean_details(&mut event.details, redaction, now_ns);
        }
        Report::Details { key, details, .. } => {
            bound_key(key);
            clean_details(details, redaction, now_ns);
        }
        Report::Snapshot(snapshot) => {
            for (key, _, details) in &mut snapshot.containers {
                bound_key(key);
                clean_details(details, redaction, now_ns);
            }
        }
    }
}

fn bound_key(key: &mut ContainerKey) {
    for (text, most) in [(&mut key.container_id, LONGEST_ID), (&mut key.runtime_namespace, LONGEST_ID), (&mut key.endpoint, LONGEST_NAME)] {
        if text.len() > most {
            *text = text[..text.floor_char_boundary(most)].into();
        }
    }
}

fn clean_details(details: &mut Details, redaction: &Redaction, now_ns: Nanos) {
    let Details {
        name,
        image,
        image_id,
        image_digest,
        command,
        user,
        hostname,
        network_mode,
        labels,
        mounts,
        ports,
        sandbox_id,
        created_ns,
        run,
        ..
    } = details;
    // Events are recovered from these times. To move one would make it another at each look, so it is dropped.
    for time_ns in [created_ns, &mut run.started_ns, &mut run.finished_ns] {
        *time_ns = time_ns.filter(|t| *t <= now_ns.saturating_add(MOST_AHEAD));
    }
    for text in [name, image, image_id, image_digest, user, hostname, network_mode, sandbox_id] {
        bound_option(text, LONGEST_NAME);
    }
    if let Some(command) = command {
        bound(command, MAX_CELL);
        replace(command, |text| redaction.text(text));
    }
    // Half an array is no JSON.
    for json in [mounts, ports] {
        if json.as_ref().is_some_and(|json| json.len() > MAX_CELL) {
            *json = Some("[]".to_owned());
        }
    }
    clean_map(Arc::make_mut(labels), redaction);
    for text in [&mut run.cgroup_path, &mut run.pid_namespace, &mut run.net_namespace, &mut run.mnt_namespace] {
        bound_option(text, LONGEST_NAME);
    }
    for list in [&mut run.ip_addresses, &mut run.mac_addresses] {
        list.retain(|address| address.len() <= LONGEST_ID);
        list.truncate(MOST_ADDRESSES);
    }
}

/// Redacts, then drops the longest values until the JSON of all fits into a cell; says what was dropped.
fn clean_map(map: &mut BTreeMap<String, String>, redaction: &Redaction) {
    if map.len() > MOST_ENTRIES || map.keys().any(|key| key.len() > LONGEST_NAME) {
        let before = map.len();
        map.retain(|key, _| key.len() <= LONGEST_NAME);
        while map.len() > MOST_ENTRIES {
            map.pop_last();
        }
        map.insert("…".to_owned(), format!("[{} dropped]", before - map.len()));
    }
    for (key, value) in map.iter_mut() {
        // A secret that is cut off at its end is still found by its key.
        bound(value, MAX_CELL);
        replace(value, |text| redaction.value(key, text));
    }
    let json = |key: &str, value: &str| {
        key.len() + value.len() + value.chars().filter(|c| c.is_control() || matches!(c, '"' | '\\')).count() * 5 + 6
    };
    let mut total: usize = map.iter().map(|(key, value)| json(key, value)).sum();
    while total > MAX_CELL {
        let Some((key, value)) = map.iter_mut().max_by_key(|(_, value)| value.len()) else { break };
        let marker = format!("[dropped: {} bytes]", value.len());
        if value.len() <= marker.len() {
            break;
        }
        total -= json(key, value) - json(key, &marker);
        *value = marker;
    }
    while total > MAX_CELL
        && let Some((key, value)) = map.pop_last()
    {
        total -= json(&key, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::{Action, Witness},
        image::ImageEvent,
        record::Record,
        recorder::tests::{docker, event},
    };

    fn labels(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let mut map = entries.into_iter().collect();
        clean_map(&mut map, &Redaction::default());
        map
    }

    #[test]
    fn a_label_of_a_megabyte_is_dropped_and_the_others_stay() {
        let map = labels([("big".into(), "x".repeat(1 << 20)), ("small".into(), "y".into()), ("db.password".into(), "z".into())]);
        assert!(map["big"].starts_with("[dropped: "), "{}", map["big"]);
        assert_eq!((&*map["small"], &*map["db.password"]), ("y", "[redacted]"));
    }

    #[test]
    fn whatever_comes_the_json_fits_into_a_cell() {
        for map in [
            labels((0..100_000).map(|n| (format!("key{n}"), "v".repeat(50)))),
            labels((0..1000).map(|n| (format!("{}{n}", "k".repeat(4000)), String::new()))),
            labels((0..10).map(|n| (n.to_string(), "\u{1}".repeat(60_000)))),
            labels([("k".repeat(5000), "v".into())]),
        ] {
            assert!(serde_json::to_string(&map).unwrap().len() <= MAX_CELL);
        }
    }

    #[test]
    fn a_time_that_cannot_be_is_bounded_and_what_was_told_is_kept() {
        let now_ns = 1_700_000_000_000_000_000;
        for (told, kept) in [(Nanos::MAX, now_ns + MOST_AHEAD), (Nanos::MIN, 0), (now_ns + 1, now_ns + 1), (7, 7)] {
            let mut event = event(&docker("c1"), Witness::Docker, Action::Start, told);
            event.details.run.started_ns = Some(told);
            let mut report = Report::Event(Box::new(event));
            super::report(&mut report, &Redaction::default(), now_ns);
            let Report::Event(event) = report else { panic!("it was an event") };
            let said = event.attributes.get("reported_time_ns").map(|t| t.parse().unwrap());
            assert_eq!((event.time_ns, said), (kept, (told != kept).then_some(told)));
            assert_eq!(event.details.run.started_ns.is_some(), told <= kept);
        }
        let mut pull = ImageEvent { time_ns: Nanos::MAX, ..ImageEvent::default() };
        pull.clean(&Redaction::default(), now_ns);
        assert_eq!(pull.time_ns, now_ns + MOST_AHEAD);
    }

    #[test]
    fn an_id_is_cut_at_a_character() {
        let mut key = ContainerKey { container_id: "é".repeat(100).into(), ..ContainerKey::default() };
        bound_key(&mut key);
        assert_eq!(key.container_id.len(), 128);
    }
}
