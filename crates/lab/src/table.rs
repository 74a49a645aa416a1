//! A finding as people read it: a lane a thread, a line a step, and how it ended.

use std::fmt::{self, Write};

use crate::finding::Finding;

/// Prints a [`Finding`] as a table.
///
/// The lanes stand in the order in which the threads first did something.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(pub &'a Finding);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = self.0;
        if !finding.steps.is_empty() {
            write_steps(f, finding)?;
        }
        writeln!(f, "{}: {}", finding.kind, finding.stuck.as_deref().unwrap_or(&finding.message))?;
        if let Some(owed) = &finding.owed {
            writeln!(f, "owed by: {owed}")?;
        }
        match &finding.at {
            Some(at) => writeln!(f, "noticed at: {at}"),
            None => Ok(()),
        }
    }
}

struct Lane<'a> {
    name: &'a str,
    width: usize,
}

fn write_steps(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let lanes = lanes(finding);
    let number_width = (finding.steps_lost + finding.steps.len()).to_string().len();
    write_line(f, number_width, "", &lanes, |lane| lane.name, "")?;
    if finding.steps_lost > 0 {
        writeln!(f, "{:number_width$}  ... {} earlier steps ...", "", finding.steps_lost)?;
    }
    for (i, step) in finding.steps.iter().enumerate() {
        let number = (finding.steps_lost + i + 1).to_string();
        let cell = |lane: &Lane<'_>| if lane.name == step.lane { step.text.as_str() } else { "" };
        write_line(f, number_width, &number, &lanes, cell, &step.at)?;
    }
    Ok(())
}

fn lanes(finding: &Finding) -> Vec<Lane<'_>> {
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    for step in &finding.steps {
        let text_width = step.text.chars().count();
        match lanes.iter_mut().find(|lane| lane.name == step.lane) {
            Some(lane) => lane.width = lane.width.max(text_width),
            None => {
                let width = text_width.max(step.lane.chars().count());
                lanes.push(Lane { name: &step.lane, width });
            }
        }
    }
    lanes
}

fn write_line<'a>(
    f: &mut fmt::Formatter<'_>,
    number_width: usize,
    number: &str,
    lanes: &'a [Lane<'a>],
    cell: impl Fn(&'a Lane<'a>) -> &'a str,
    at: &str,
) -> fmt::Result {
    let mut line = format!("{number:>number_width$}");
    for lane in lanes {
        write!(line, "  {:width$}", cell(lane), width = lane.width)?;
    }
    write!(line, "  {at}")?;
    writeln!(f, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Kind, Step};

    #[test]
    fn each_thread_has_its_lane_and_each_step_its_line() {
        let step = |lane: &str, text: &str, line: u32| Step {
            lane: lane.into(),
            text: text.into(),
            at: format!("s.rs:{line}"),
        };
        let finding = Finding {
            stuck: Some("request 2 on hctx 1".into()),
            owed: Some("A, which put the budget".into()),
            steps: vec![step("A", "take", 1), step("B", "fail to take", 2), step("A", "put", 3)],
            ..Finding::without_steps(Kind::Panic, "m".into())
        };
        let want = "   A     B\n\
                    1  take                s.rs:1\n\
                    2        fail to take  s.rs:2\n\
                    3  put                 s.rs:3\n\
                    panic: request 2 on hctx 1\n\
                    owed by: A, which put the budget\n";
        assert_eq!(Table(&finding).to_string(), want);
    }
}
