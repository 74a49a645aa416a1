use blkmq_lab::*;
fn main() {
    main_if_child(SCENARIOS);
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut o = Options::default();
    if let Ok(b) = std::env::var("BOUND") { o.bound = Some(b.parse().unwrap()); }
    
    let out = check(SCENARIOS, &names, &o, &|_| {});
    for x in out.unwrap() { println!("{} {:?} bound {:?} exhausted {} schedules {} secs {:.1} found {} {:?}", x.scenario, x.explorer, x.bound, x.exhausted, x.schedules, x.seconds, x.found, x.kind); if let Some(f) = &x.finding { println!("{}", Table(f)); } }
}
