//! What a device's name stood for is known of every time, though names come back.

use std::fs;

use mayfly_tests::{Loop, Mayfly, Result, Verdict};

use crate::turn;

/// A compressed disk in memory, which comes and goes as a stick does.
struct Zram(String);

impl Zram {
    fn plug() -> Result<Self> {
        let number = fs::read_to_string("/sys/class/zram-control/hot_add")
            .map_err(|error| format!("cannot add a zram device ({error}): `modprobe zram` first"))?;
        Ok(Self(number.trim().to_owned()))
    }

    fn unplug(&self) -> Result<()> {
        Ok(fs::write("/sys/class/zram-control/hot_remove", &self.0)?)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let _ = self.unplug();
    }
}

#[test]
fn a_device_that_comes_and_goes_has_an_interval_for_each_time() -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::with("[devices]\nenabled = true\n")?;
    let recording = mayfly.record()?;
    let first = Zram::plug()?;
    let name = format!("/dev/zram{}", first.0);
    let open = format!("SELECT count(*) AS n FROM block_devices_history WHERE name = '{name}' AND valid_to IS NULL");
    let closed = format!("SELECT count(*) AS n FROM block_devices_history WHERE name = '{name}' AND ended_reason = 'removed'");
    mayfly.wait_for_count(&open, 1)?;
    first.unplug()?;
    mayfly.wait_for_count(&closed, 1)?;
    let second = Zram::plug()?;
    mayfly.wait_for_count(&open, 1)?;
    second.unplug()?;
    mayfly.wait_for_count(&closed, 2)?;
    recording.stop()?;

    let mut verdict = Verdict::default();
    let found = mayfly.lines(&format!("SELECT action || ' ' || bus FROM device_events WHERE name = '{name}' ORDER BY time_ns"))?;
    verdict.check(found == ["add zram", "remove zram", "add zram", "remove zram"], "events", || format!("{found:?}"));
    let of_events = "SELECT count(*) AS n FROM block_devices_history h JOIN device_events e ON e.name = h.name AND e.time_ns IN (h.valid_from_ns, h.valid_to_ns)";
    let ends = mayfly.count(&format!("{of_events} WHERE h.name = '{name}' AND h.complete = 1"))?;
    verdict.check(second.0 != first.0 || ends == 4, "ends as the events say", || ends.to_string());
    let between = format!(
        "SELECT count(*) AS n FROM device_events e CROSS JOIN block_devices_history h ON h.name = e.name AND h.as_of = e.time_ns \
         WHERE e.action = 'remove' AND e.name = '{name}'"
    );
    verdict.check(mayfly.count(&between)? == 0, "nothing has the name in between", String::new);
    verdict.pass()
}

#[test]
fn another_medium_under_the_same_name_is_another_interval_also_after_a_gap() -> Result<()> {
    let _turn = turn();
    let home = tempfile::tempdir()?;
    let images = ["first", "second", "third"].map(|label| Loop::image(home.path(), label));
    let [first, second, third] = images.map(|image| image.map_err(|error| error.to_string()));
    let stick = Loop::with(&first?)?;
    let mayfly = Mayfly::with("[devices]\nenabled = true\n")?;
    let recording = mayfly.record()?;
    let labelled = |label: &str| {
        format!(
            "SELECT count(*) AS n FROM block_devices_history WHERE name = '{}' AND label = '{label}' AND valid_to IS NULL",
            stick.device()
        )
    };
    mayfly.wait_for_count(&labelled("first"), 1)?;
    stick.replace(&second?)?;
    mayfly.wait_for_count(&labelled("second"), 1)?;
    recording.stop()?;
    stick.replace(&third?)?;
    let recording = mayfly.record()?;
    mayfly.wait_for_count(&labelled("third"), 1)?;
    recording.stop()?;

    let mut verdict = Verdict::default();
    let sql = format!(
        "SELECT concat_ws(' ', label, type, ended_reason, evidence LIKE '%startup%', complete) FROM block_devices_history WHERE name = '{}' AND label <> '' ORDER BY valid_from_ns",
        stick.device()
    );
    let found = mayfly.lines(&sql)?;
    let expected = ["first ext4 changed 1 1", "second ext4 unknown 0 0", "third ext4  1 1"];
    verdict.check(found == expected, "intervals", || format!("{found:?} instead of {expected:?}"));
    let gaps = "SELECT count(*) AS n FROM recorder_gaps WHERE cause = 'recorder_down'";
    verdict.check(mayfly.count(gaps)? == 1, "the gap is named", String::new);
    let at = "SELECT valid_from_ns AS n FROM block_devices_history WHERE label = 'second'";
    let as_of = format!(
        "SELECT label || ' ' || complete FROM block_devices_history WHERE name = '{}' AND as_of = {}",
        stick.device(),
        mayfly.count(at)?
    );
    let found = mayfly.lines(&as_of)?;
    verdict.check(found == ["second 1"], "as of then", || format!("{found:?}"));
    verdict.pass()
}
