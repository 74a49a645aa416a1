//! The explorers explored: what they have to find, what they have to prove, and how they end.
//!
//! This program is its own test runner, because each exploration starts it again, and that has to
//! come first in `main`.

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use blkmq_lab::Expect::{self, Clean};
use blkmq_lab::{
    CheckError, Event, Explorer, Options, Outcome, Plan, Scenario, Selection, Table, check, list,
    main_if_child,
};

blkmq_lab::flavours! {
    #[path = "toys/ends.rs"]
    pub(crate) mod ends;
    #[path = "toys/founding.rs"]
    pub(crate) mod founding;
    #[path = "toys/litmus.rs"]
    pub(crate) mod litmus;
}

/// A toy that both explorers run, with what each of them is expected to make of it.
macro_rules! toy {
    ($name:literal, $module:ident::$function:ident, $bounds:expr, $loom:expr, $shuttle:expr) => {
        Scenario {
            name: $name,
            about: "A toy",
            row: None,
            bug: None,
            loom: Some(Plan {
                run: under_loom::$module::$function,
                bounds: $bounds,
                expect: $loom,
                rounds: None,
            }),
            shuttle: Some(Plan {
                run: under_shuttle::$module::$function,
                bounds: $bounds,
                expect: $shuttle,
                rounds: None,
            }),
        }
    };
}

const STALL: Expect = Expect::Finding("stall");
const DEADLOCK: Expect = Expect::Finding("deadlock");
const CRASH: Expect = Expect::Finding("crash");
const HANG: Expect = Expect::Finding("hang");
const LIVELOCK: Expect = Expect::Finding("livelock");

const SCENARIOS: &[Scenario] = &[
    toy!("relaxed", litmus::relaxed, &[3], STALL, Clean),
    toy!("fence-on-one-side", litmus::fence_on_one_side, &[3], STALL, Clean),
    toy!("fenced", litmus::fenced, &[8], Clean, Clean),
    Scenario { row: Some("A1"), ..toy!("founding", founding::bug, &[0, 1, 2, 3], STALL, STALL) },
    toy!("founding-while-waiting", founding::bug_while_waiting, &[2], STALL, STALL),
    toy!("looked-again", founding::looked_again, &[3], Clean, Clean),
    toy!("late-timer", founding::late_timer, &[3], Clean, Clean),
    toy!("any-timer", founding::any_timer, &[1], Clean, Clean),
    toy!("deadlock", ends::deadlock, &[1], DEADLOCK, DEADLOCK),
    toy!("abort", ends::abort, &[1], CRASH, CRASH),
    toy!("hang", ends::hang, &[1], HANG, HANG),
    toy!("spin", ends::spin, &[1], LIVELOCK, LIVELOCK),
    toy!("spin-politely", ends::spin_politely, &[2], Clean, Clean),
    toy!("endless", ends::endless, &[20], Clean, Clean),
    Scenario { shuttle: None, ..toy!("loom-only", litmus::fenced, &[1], Clean, Clean) },
    Scenario {
        loom: None,
        shuttle: Some(Plan::clean(under_shuttle::ends::ninth, &[]).in_rounds(3)),
        ..toy!("in-rounds", ends::ninth, &[], Clean, Clean)
    },
];

const TESTS: &[(&str, fn())] = &[
    ("loom_finds_store_buffering_and_shuttle_cannot", loom_finds_store_buffering),
    ("the_founding_race_needs_two_preemptions", founding_needs_two_preemptions),
    ("the_cures_are_proved", the_cures_are_proved),
    ("what_it_means_to_be_blocked_is_said", blocked_is_a_stall),
    ("a_deadlock_is_a_finding", a_deadlock_is_a_finding),
    ("a_dead_process_is_a_finding", a_dead_process_is_a_finding),
    ("a_process_that_hangs_is_killed", a_process_that_hangs_is_killed),
    ("spinning_is_a_livelock_unless_it_yields", spinning),
    ("the_time_limit_is_kept_and_said", the_time_limit),
    ("the_random_search_repeats_itself", the_random_search),
    ("what_is_too_deep_runs_in_rounds", rounds),
    ("a_wrong_name_is_told_the_right_ones", a_wrong_name),
    ("a_child_that_knows_no_such_scenario_is_an_error", a_child_that_refuses),
    ("an_expectation_can_be_disappointed", a_disappointment),
    ("an_outcome_has_its_names_in_json", json_names),
];

fn main() -> ExitCode {
    main_if_child(SCENARIOS);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w));
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore(name: &str, options: Options) -> Vec<Outcome> {
    let explored = check(SCENARIOS, &Selection::Named(vec![name.to_owned()]), &options, &|_| ());
    let outcomes = explored.expect("the toys can be explored");
    for outcome in &outcomes {
        let us_each = outcome.seconds * 1e6 / outcome.schedules.max(1) as f64;
        println!("  {}; {us_each:.0} us each", blkmq_lab::progress::line(outcome));
    }
    outcomes
}

fn both(name: &str) -> (Outcome, Outcome) {
    let outcomes = explore(name, Options::default());
    let [loom, shuttle] = <[Outcome; 2]>::try_from(outcomes).expect("one bound for each of two");
    assert_eq!((loom.explorer, shuttle.explorer), (Explorer::Loom, Explorer::Shuttle));
    assert!(loom.expected && shuttle.expected, "{loom:#?}\n{shuttle:#?}");
    (loom, shuttle)
}

fn assert_found(outcome: &Outcome, kind: &str) {
    assert_eq!(outcome.kind.as_deref(), Some(kind), "{outcome:#?}");
    assert!(outcome.found && !outcome.exhausted, "{outcome:#?}");
}

fn assert_proved(outcome: &Outcome) {
    assert!(outcome.exhausted && !outcome.found && outcome.kind.is_none(), "{outcome:#?}");
    assert!(outcome.schedules > 1, "{outcome:#?}");
}

fn loom_finds_store_buffering() {
    for bug in ["relaxed", "fence-on-one-side"] {
        let (loom, shuttle) = both(bug);
        assert_found(&loom, "stall");
        assert!(loom.schedules < 10, "at once, and not after {}", loom.schedules);
        assert_proved(&shuttle);
    }
    let (loom, shuttle) = both("fenced");
    assert_proved(&loom);
    assert_proved(&shuttle);
}

fn founding_needs_two_preemptions() {
    let outcomes = explore("founding", Options::default());
    assert!(outcomes.iter().all(|outcome| outcome.expected), "{outcomes:#?}");
    let of = |explorer| outcomes.iter().filter(move |o| o.explorer == explorer);
    let bounds: Vec<_> = of(Explorer::Shuttle).map(|o| (o.bound, o.exhausted, o.found)).collect();
    assert_eq!(bounds, [(Some(0), true, false), (Some(1), true, false), (Some(2), false, true)]);
    assert!(of(Explorer::Loom).next_back().is_some_and(|outcome| outcome.found));
    let found = of(Explorer::Shuttle).next_back().and_then(|o| o.finding.as_ref()).expect("found");
    assert_eq!(found.owed.as_deref(), Some("who put the unused budget"));
    let table = Table(found).to_string();
    println!("{table}");
    let tells = |text: &str| found.steps.iter().position(|step| step.text == text);
    let [failed, put] = ["run 1: no budget", "put the budget"].map(|text| tells(text).unwrap());
    assert!(failed < put, "C failed while the unused budget was held\n{table}");
    assert_eq!(found.steps[failed].lane, "C");
    assert!(found.steps[failed].at.contains("toys/founding.rs:"), "{table}");
    assert!(table.contains("stall: a request that nobody runs"), "{table}");
}

fn the_cures_are_proved() {
    for cure in ["looked-again", "late-timer", "any-timer"] {
        let (loom, shuttle) = both(cure);
        assert_proved(&loom);
        assert_proved(&shuttle);
    }
}

fn blocked_is_a_stall() {
    let (loom, shuttle) = both("founding-while-waiting");
    for outcome in [loom, shuttle] {
        assert_found(&outcome, "stall");
        let finding = outcome.finding.expect("found");
        assert!(finding.message.starts_with("deadlock"), "{}", finding.message);
        assert_eq!(finding.stuck.as_deref(), Some("a request that nobody runs"));
        assert!(finding.steps.len() > 3, "{finding:#?}");
    }
}

fn a_deadlock_is_a_finding() {
    let (loom, shuttle) = both("deadlock");
    assert_found(&loom, "deadlock");
    assert_found(&shuttle, "deadlock");
}

fn a_dead_process_is_a_finding() {
    let (loom, shuttle) = both("abort");
    for outcome in [loom, shuttle] {
        assert_found(&outcome, "crash");
        let message = outcome.finding.expect("found").message;
        assert!(message.contains("these are my last words"), "{message}");
    }
}

fn a_process_that_hangs_is_killed() {
    let half_a_second = Duration::from_millis(500);
    let options = Options { time_limit: half_a_second, grace: half_a_second, ..Options::default() };
    for outcome in explore("hang", options) {
        assert_found(&outcome, "hang");
        assert!(outcome.seconds >= 1.0 && outcome.seconds < 10.0, "{}", outcome.seconds);
    }
}

fn spinning() {
    let (loom, shuttle) = both("spin");
    assert_found(&loom, "livelock");
    assert_found(&shuttle, "livelock");
    let (loom, shuttle) = both("spin-politely");
    assert_proved(&loom);
    assert_proved(&shuttle);
}

fn the_time_limit() {
    let progress = Mutex::new(Vec::new());
    let time_limit = Duration::from_millis(1500);
    let options = Options { time_limit, ..Options::default() };
    let outcomes =
        check(SCENARIOS, &Selection::Named(vec!["endless".to_owned()]), &options, &|event| {
            if let Event::Progress { explorer, schedules, .. } = event {
                progress.lock().expect("nobody panics with it").push((*explorer, *schedules));
            }
        });
    for outcome in outcomes.expect("the toys can be explored") {
        assert!(!outcome.exhausted && !outcome.found, "{outcome:#?}");
        assert!(outcome.schedules > 100, "{outcome:#?}");
        assert!(outcome.seconds >= 1.5 && outcome.seconds < 4.0, "{outcome:#?}");
        let progress = progress.lock().expect("nobody panics with it");
        let seen = progress.iter().any(|(explorer, schedules)| {
            *explorer == outcome.explorer && *schedules > 0 && *schedules <= outcome.schedules
        });
        assert!(seen, "{progress:?}");
    }
}

fn the_random_search() {
    let draw = |seed| {
        let explorers = vec![Explorer::ShuttleRandom];
        let options = Options { explorers, seed, ..Options::default() };
        let mut outcomes = explore("founding", options);
        let outcome = outcomes.pop().expect("one outcome");
        assert_found(&outcome, "stall");
        assert_eq!(outcome.bound, None);
        (outcome.schedules, outcome.seed.expect("drawn from one"), outcome.finding)
    };
    let (schedules, seed, finding) = draw(7);
    assert_eq!(draw(7), (schedules, seed, finding.clone()));
    // What is found can be repeated by itself.
    assert_eq!((seed, schedules > 1), (7 + schedules - 1, true));
    assert_eq!(draw(seed), (1, seed, finding));
    let explorers = vec![Explorer::ShuttleRandom];
    let options = Options { explorers, random_schedules: 50, ..Options::default() };
    let outcome = explore("looked-again", options).remove(0);
    assert_eq!((outcome.schedules, outcome.exhausted, outcome.found), (50, false, false));
}

fn rounds() {
    let options = |rounds| Options { rounds, seed: 4, ..Options::default() };
    // Both explorers are asked for; a plan in rounds is drawn, and once.
    let outcomes = explore("in-rounds", options(None));
    let [outcome] = &outcomes[..] else { panic!("not one outcome: {outcomes:#?}") };
    assert_eq!((outcome.explorer, outcome.bound), (Explorer::ShuttleRandom, None));
    assert_eq!((outcome.schedules, outcome.seed, outcome.expected), (3, Some(4), true));
    let outcome = explore("in-rounds", options(Some(5))).remove(0);
    assert_eq!((outcome.schedules, outcome.found), (5, false));
    // The scenario is told the seed of each, and ends badly with that of the sixth.
    let outcome = explore("in-rounds", options(Some(50))).remove(0);
    assert_found(&outcome, "the ninth");
    assert_eq!((outcome.schedules, outcome.seed, outcome.expected), (6, Some(9), false));

    let asked = Selection::Named(vec!["in-rounds".to_owned()]);
    let listed = list(SCENARIOS, &asked).expect("it is there");
    let listed: Vec<_> = listed.iter().map(|one| (one.explorer, one.bound, one.rounds)).collect();
    assert_eq!(listed, [(Explorer::ShuttleRandom, None, Some(3))]);
}

fn a_wrong_name() {
    let asked = Selection::Named(vec!["founding".to_owned(), "fuonding".to_owned()]);
    let error = check(SCENARIOS, &asked, &Options::default(), &|_| ()).expect_err("wrong");
    assert!(matches!(&error, CheckError::UnknownScenario { name, .. } if name == "fuonding"));
    let message = error.to_string();
    assert!(SCENARIOS.iter().all(|scenario| message.contains(scenario.name)), "{message}");
    assert!(list(SCENARIOS, &asked).is_err());

    let registry = [Scenario { bug: Some("a0823421a4d7"), ..SCENARIOS[0] }];
    let asked = Selection::Bugs(vec!["a0823421a4d8".to_owned()]);
    let error = check(&registry, &asked, &Options::default(), &|_| ()).expect_err("wrong");
    assert!(error.to_string().contains("a0823421a4d7"), "{error}");
    assert!(list(&registry, &Selection::Clean).is_ok_and(|listed| listed.is_empty()));

    let options = Options { explorers: vec![Explorer::Shuttle], ..Options::default() };
    let error =
        check(SCENARIOS, &Selection::Named(vec!["loom-only".to_owned()]), &options, &|_| ())
            .expect_err("none");
    assert!(matches!(error, CheckError::NothingToDo { .. }), "{error}");
    assert_eq!(
        list(SCENARIOS, &Selection::Named(vec!["loom-only".to_owned()])).map(|l| l.len()).ok(),
        Some(1)
    );
}

fn json_names() {
    let options = Options { bound: Some(1), explorers: vec![Explorer::Loom], ..Options::default() };
    let outcome = explore("founding", options).remove(0);
    let json = serde_json::to_value(&outcome).expect("it has string keys and plain values");
    assert_eq!(json["scenario"], "founding");
    assert_eq!(json["row"], "A1");
    assert_eq!(json["explorer"], "loom");
    assert_eq!(json["bound"], 1);
    assert!(json["bug"].is_null() && json["schedules"].is_u64() && json["seconds"].is_f64());
    assert!(json["exhausted"].is_boolean() && json["found"].is_boolean());
    assert_eq!(outcome.found, json["kind"].is_string());
}

fn a_child_that_refuses() {
    let unknown = [Scenario { name: "not-in-main", ..SCENARIOS[0] }];
    let error =
        check(&unknown, &Selection::All, &Options::default(), &|_| ()).expect_err("refused");
    let message = error.to_string();
    assert!(message.contains("there is no scenario 'not-in-main' for loom"), "{message}");
    assert!(message.contains("main_if_child"), "{message}");
}

fn a_disappointment() {
    // What is expected is the parent's business, so the same names may be expected to do otherwise.
    let swapped = |name: &str| {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("listed");
        let turn =
            |plan: Plan| Plan { expect: if plan.expect == Clean { STALL } else { Clean }, ..plan };
        Scenario { loom: scenario.loom.map(turn), shuttle: scenario.shuttle.map(turn), ..*scenario }
    };
    let options = Options { explorers: vec![Explorer::Loom], ..Options::default() };
    let registry = [swapped("relaxed"), swapped("fenced")];
    let outcomes =
        check(&registry, &Selection::All, &options, &|_| ()).expect("the toys can be explored");
    assert_eq!(outcomes.iter().map(|o| o.found).collect::<Vec<_>>(), [true, false]);
    assert!(outcomes.iter().all(|outcome| !outcome.expected), "{outcomes:#?}");
}
