//! `triggered_results`.

use mayfly_history::{EventTable, bigint, text, triggered::TriggeredResult};

use crate::{events::Events, json};

pub static TRIGGERED_RESULTS: EventTable<TriggeredResult> = EventTable {
    name: "triggered_results",
    doc: "What queries gave that osquery ran at event time: those of triggers, of enrolment and of farewell; one row for each row that they gave.",
    columns: &[
        text("kind", |r| Some(r.occasion.as_str().into()), "Why it was run: `trigger`, `enrolment` or `farewell`."),
        text("name", |r: &TriggeredResult| Some(r.name.as_str().into()), "Its name in the configuration.").index(),
        text("query", |r| Some(r.query.as_str().into()), "The SQL that osquery ran, parameters filled in."),
        text("event_table", |r| Some(r.event_table.into()), "The table of the event that was met; empty for enrolment and farewell."),
        text("event_eid", |r: &TriggeredResult| Some(r.event_eid.as_str().into()), "The `eid` of that event: join on it.").index(),
        bigint(
            "events",
            |r| r.events,
            "How many events this run answers for: equal queries that wait are run once, for the newest of their events.",
        ),
        bigint("delay_ms", |r| r.delay_ms, "Milliseconds from the event's own time until the query began."),
        bigint("duration_ms", |r| r.duration_ms, "Milliseconds that osquery took to answer."),
        text(
            "row",
            |r| (!r.row.is_empty()).then(|| json::object(&r.row)),
            "The row that the query gave, as a JSON object; empty where it gave none.",
        ),
        text("error", |r| Some(r.error.as_str().into()), "Why there is no row; empty where there is one."),
    ],
    examples: &[
        (
            "What ran in each new container, with the event that asked.",
            "SELECT e.name AS container, json_extract(r.row, '$.cmdline') AS cmdline, r.delay_ms FROM triggered_results r\n\
             JOIN container_lifecycle_events e ON e.eid = r.event_eid WHERE r.name = 'new-container-processes';",
        ),
        ("Triggers that fail.", "SELECT name, error, count(*) AS times FROM triggered_results WHERE error <> '' GROUP BY name, error;"),
    ],
};

pub(crate) static TABLE: Events<TriggeredResult> = Events::captured(&TRIGGERED_RESULTS);
