//! Asks what events asked for, off their path.

use std::time::{Duration, Instant};

use mayfly_history::{Feed, chain, now, triggered::Occasion};
use mayfly_tables::TRIGGERED_RESULTS;

use super::{
    config::Trigger,
    queue::{Order, Queue},
};
use crate::asking::{
    Office,
    answer::{Answer, Event, Question},
};

/// How long an osquery that went may take to come back before a query counts as failed.
const RETURNS_WITHIN: Duration = Duration::from_secs(60);

/// Answers orders until the queue is closed.
pub(super) fn work(office: &Office, queue: &Queue, triggers: &[(Trigger, Feed)]) {
    while let Some(order) = queue.take() {
        let Some((trigger, feed)) = triggers.get(order.trigger) else { continue };
        // What was not answered is asked again by the next extension.
        let Some(answer) = ask(office, trigger, &order) else { return queue.give_back(order) };
        match &answer.error {
            Some(error) => feed.complain(error.clone()),
            None => feed.running(),
        }
        let lag_ms = answer.results.first().and_then(|result| result.delay_ms).unwrap_or((now() - order.time_ns) / 1_000_000);
        if let Err(error) = office.captures().append(&TRIGGERED_RESULTS, answer.results) {
            feed.complain(chain(&error));
            (0..order.events).for_each(|_| feed.count_rejected());
        } else {
            (0..order.events).for_each(|_| feed.count_stored(order.time_ns, lag_ms));
        }
        queue.answered(&order);
        office.feeds().wake();
    }
}

/// Asks once osquery is there, and again if it goes before it answered; `None`: the process ends.
fn ask(office: &Office, trigger: &Trigger, order: &Order) -> Option<Answer> {
    let event = Event { table: order.table, eid: order.event.to_string(), time_ns: order.time_ns, count: order.events.into() };
    let question =
        Question { occasion: Occasion::Trigger, name: &trigger.name, sql: &order.sql, event: Some(&event), patience: trigger.patience };
    let mut deadline = None;
    loop {
        let up = office.line().wait_for_other(0, None)?;
        let answer = question.ask(office.line());
        let give_up = *deadline.get_or_insert(Instant::now() + RETURNS_WITHIN);
        if !answer.is_gone || Instant::now() >= give_up {
            return Some(answer);
        }
        // The registration that still seems to hold is that of the osquery that went.
        if office.line().wait_for_other(up.number, Some(give_up)).is_none() {
            return if office.line().is_hung_up() { None } else { Some(answer) };
        }
    }
}
