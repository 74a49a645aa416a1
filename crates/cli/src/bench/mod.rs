//! `blkmq bench`: jobs in real time, in this process, on the layer that serves.

mod device;
mod env;
mod load;
mod memory;
mod pace;
mod progress;
mod thread;
mod usage;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::SystemTime;

use anyhow::Context;
use blkmq_core::{
    Config, CtxId, Deadline, DeadlineConfig, Maps, Queue, Rates, Scheduler, TenantConfig, TenantId,
    VolumeId,
};
use blkmq_drivers::{Device, connect_kicks};

use crate::complaint::{Complaint, Complaints};
use crate::job::pattern::{Region, Unfit, longest};
use crate::job::{BlockSizes, Job, Jobs};
use crate::model::ModelSpec;
use crate::output::{JobReport, Report};
use crate::units::render_size;

pub(crate) use device::DriverName;
use device::{Run, with_device};
use env::Inboxes;
use load::{Load, Order};
use memory::Memory;
use thread::{Clock, Group, Outcome, Thread};

/// On what the jobs run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The device.
    pub(crate) driver: DriverName,
    /// The file, for driver `file`.
    pub(crate) path: Option<PathBuf>,
    /// How the device behaves, for driver `model`.
    pub(crate) model: ModelSpec,
    /// Who decides the order.
    pub(crate) scheduler: SchedulerName,
    /// How many requests the queue holds.
    pub(crate) nr_requests: u32,
    /// The device's budget; nothing if it has none.
    pub(crate) queue_depth: Option<u32>,
    /// The number of hardware queues; nothing for one a clone, up to the number of processors.
    pub(crate) hw_queues: Option<u16>,
    /// The limits of each tenant.
    pub(crate) limits: Rates,
}

/// The schedulers by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SchedulerName {
    /// First come, first served.
    #[default]
    None,
    /// By position, with deadlines.
    MqDeadline,
}

/// The most memory for the I/Os of all clones together.
const MAX_MEMORY_BYTES: u64 = 4 << 30;

/// Runs the jobs.
///
/// # Errors
///
/// [`Complaints`] if the jobs do not fit the device, and what the system refuses.
pub(crate) fn run(options: &Options, jobs: &Jobs) -> anyhow::Result<Report> {
    let needed_bytes = jobs.jobs.iter().map(needed_bytes).max().unwrap_or(0);
    let groups = groups(&jobs.jobs);
    let clones = groups.iter().map(|group| group.len()).max().unwrap_or(0);
    let clones = u16::try_from(clones).ok().filter(|clones| *clones <= MAX_CLONES);
    let clones = clones.ok_or_else(|| {
        complain(
            format!("more than {MAX_CLONES} clones of jobs would run at once"),
            "lower numjobs, or part the jobs with stonewall",
        )
    })?;
    let memory_bytes: u64 = groups.iter().flatten().map(|clone| clone.memory_bytes()).sum();
    if memory_bytes > MAX_MEMORY_BYTES {
        let (has, most) = (render_size(memory_bytes), render_size(MAX_MEMORY_BYTES));
        let what = format!("the I/Os of all jobs would take {has} of memory, above {most}");
        return Err(complain(what, "lower iodepth, bs or numjobs").into());
    }
    let reports = with_device(options, needed_bytes, Bench { options, groups: &groups, clones })??;
    Ok(Report {
        time: SystemTime::now(),
        global_options: jobs.global_options.clone(),
        jobs: reports,
    })
}

/// The most submitters at once.
const MAX_CLONES: u16 = 1024;

/// A clone of a job.
#[derive(Clone, Copy, Debug)]
struct Clone<'a> {
    job: &'a Job,
    /// Which of the job's clones it is.
    nth: u32,
    /// Which of all clones it is.
    stream: u64,
    /// Its tenant's: each has one.
    volume: VolumeId,
}

impl Clone<'_> {
    fn memory_bytes(&self) -> u64 {
        u64::from(self.job.iodepth) * u64::from(longest(self.job))
    }
}

/// The clones of all jobs, in groups that run one after the other.
fn groups(jobs: &[Job]) -> Vec<Vec<Clone<'_>>> {
    let mut groups: Vec<Vec<Clone<'_>>> = vec![Vec::new()];
    let mut tenants = BTreeMap::new();
    let mut stream = 0;
    for (nth, job) in jobs.iter().enumerate() {
        if job.stonewall && groups.last().is_some_and(|group| !group.is_empty()) {
            groups.push(Vec::new());
        }
        // Each job is a tenant, unless it shares a name with another.
        let owner = job.tenant.clone().ok_or(nth);
        let next = tenants.len() as u32;
        let volume = VolumeId(*tenants.entry(owner).or_insert(next));
        for nth in 0..job.numjobs {
            let group = groups.last_mut().expect("there is always one");
            group.push(Clone { job, nth, stream, volume });
            stream += 1;
        }
    }
    groups
}

/// How large a device has to be for a job; 0 if the job takes what is there.
fn needed_bytes(job: &Job) -> u64 {
    let start_bytes = job
        .offset_increment_bytes
        .saturating_mul(u64::from(job.numjobs) - 1)
        .saturating_add(job.offset_bytes);
    match job.size_bytes {
        Some(size_bytes) => start_bytes.saturating_add(size_bytes),
        None => 0,
    }
}

/// All groups, to be run on a device.
struct Bench<'a> {
    options: &'a Options,
    groups: &'a [Vec<Clone<'a>>],
    clones: u16,
}

impl Run for Bench<'_> {
    type Output = anyhow::Result<Vec<JobReport>>;

    fn run<D: Device>(self, device: D) -> Self::Output {
        let orders = self.orders(&device)?;
        let options = self.options;
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        let cpus = u16::try_from(cpus).unwrap_or(u16::MAX);
        let hw_queues = options.hw_queues.unwrap_or(self.clones.min(cpus)).max(1);
        // Each hardware queue needs a thread that serves it, even if there are fewer clones.
        let threads = self.clones.max(hw_queues);
        let inboxes = Inboxes::new(threads, options.nr_requests).context("making an eventfd")?;
        let inboxes = Arc::new(inboxes);
        let tenants = tenants(self.groups, &options.limits);
        let config = Config {
            nr_ctx: threads,
            maps: Maps::of(hw_queues),
            nr_requests: options.nr_requests,
            nr_tags: options.nr_requests,
            budget: options.queue_depth,
            scheduler: scheduler(options),
            volumes: (0..tenants.len()).map(|tenant| TenantId(tenant as u32)).collect(),
            tenants,
            ..Config::default()
        };
        let queue = Arc::new(Queue::new(device, Arc::clone(&inboxes), config));
        connect_kicks(&queue);
        // One clock for all groups, because the queue must not see time go back.
        let clock = Clock::new();
        let mut reports = Vec::new();
        for (group, orders) in self.groups.iter().zip(&orders) {
            let outcomes =
                run_group(&queue, &inboxes, clock, (threads, options.nr_requests), orders)?;
            let number = reports.last().map_or(0, |report: &JobReport| report.group + 1);
            report(number, group, outcomes, &mut reports);
        }
        anyhow::ensure!(queue.defects() == 0, "{} requests were dropped", queue.defects());
        Ok(reports)
    }
}

impl<'a> Bench<'a> {
    /// What each clone is to do, or all that is wrong with it.
    fn orders<D: Device>(&self, device: &D) -> Result<Vec<Vec<Order<'a>>>, Complaints> {
        let mut complaints = Vec::new();
        let mut order = |clone: &Clone<'a>| {
            check_alignment(clone.job, device).map_err(|wrong| complaints.push(wrong)).ok()?;
            let region = Region::of(clone.job, clone.nth, device.size_bytes());
            let unfit = |unfit: Unfit| {
                complaints.push(complain(unfit.to_string(), "change size, offset or bs"));
            };
            let region = region.map_err(unfit).ok()?;
            Some(Order { job: clone.job, region, stream: clone.stream, volume: clone.volume })
        };
        let orders =
            self.groups.iter().map(|group| group.iter().filter_map(&mut order).collect()).collect();
        // All clones of a job have the same faults.
        complaints.dedup();
        if complaints.is_empty() { Ok(orders) } else { Err(Complaints(complaints)) }
    }
}

/// The blocks of a job must be whole blocks of the device.
fn check_alignment<D: Device>(job: &Job, device: &D) -> Result<(), Complaint> {
    let block_bytes = device.block_sizes().minimum_bytes;
    let fits = |bytes: u64| bytes.is_multiple_of(block_bytes.into());
    let lengths: Vec<u32> = job
        .block_sizes
        .iter()
        .zip(job.rw.mix.kinds())
        .filter(|(_, occurs)| *occurs)
        .flat_map(|(sizes, _)| match sizes {
            BlockSizes::Split(parts) => parts.iter().map(|part| part.0).collect(),
            one_or_range => vec![one_or_range.min()],
        })
        .collect();
    let offsets = [job.offset_bytes, job.offset_increment_bytes];
    let wrong = lengths.into_iter().map(u64::from).chain(offsets).find(|bytes| !fits(*bytes));
    match wrong {
        None => Ok(()),
        Some(bytes) => Err(complain(
            format!(
                "job `{}`: {} bytes are no multiple of the device's block of {block_bytes}",
                job.name, bytes
            ),
            format!("use multiples of {} for bs and offset", render_size(block_bytes.into())),
        )),
    }
}

/// The tenants of all jobs, in the order of their volumes.
fn tenants(groups: &[Vec<Clone<'_>>], limits: &Rates) -> Vec<TenantConfig> {
    let mut tenants = Vec::new();
    for clone in groups.iter().flatten() {
        let index = clone.volume.0 as usize;
        let weight = clone.job.weight.unwrap_or(TenantConfig::default().weight);
        if index == tenants.len() {
            tenants.push(TenantConfig { weight, limits: *limits, group: None });
        }
    }
    tenants
}

fn scheduler(options: &Options) -> Option<Box<dyn Scheduler>> {
    match options.scheduler {
        SchedulerName::None => None,
        SchedulerName::MqDeadline => {
            Some(Box::new(Deadline::new(DeadlineConfig::default(), options.nr_requests)))
        }
    }
}

/// Runs the clones of a group, each in a thread of its own, until all have ended.
fn run_group<D: Device>(
    queue: &Queue<D, Inboxes>,
    inboxes: &Inboxes,
    clock: Clock,
    (threads, nr_requests): (u16, u32),
    orders: &[Order<'_>],
) -> anyhow::Result<Vec<Outcome>> {
    let memory = |order: &Order<'_>| Load::memory(order.job, order.stream);
    let memories: Vec<Memory> =
        orders.iter().map(memory).collect::<io::Result<_>>().context("making the buffers")?;
    inboxes.reset();
    let group = Group {
        queue,
        inboxes,
        clock,
        nr_requests,
        active: AtomicU32::new(orders.len() as u32),
        ios: AtomicU64::new(0),
    };
    let start_ns = group.clock.now_ns();
    let mut outcomes = Vec::with_capacity(orders.len());
    std::thread::scope(|scope| {
        let progress = progress::Display::begin(scope, &group.ios);
        let start = |ctx: u16| {
            let mut ring = queue.driver().ring(nr_requests)?;
            let load = orders.get(usize::from(ctx)).map(|order| {
                let memory = &memories[usize::from(ctx)];
                // SAFETY: the memory outlives this scope, and with it the thread that has the ring.
                queue.driver().register_buffers(&mut ring, &[unsafe { memory.area() }]);
                Load::new(order, memory, start_ns)
            });
            let thread = Thread::new(&group, queue.cpu(CtxId(ctx), ring), load);
            let name = format!("bench-{ctx}");
            std::thread::Builder::new().name(name).spawn_scoped(scope, move || thread.run())
        };
        let handles: io::Result<Vec<_>> = (0..threads).map(start).collect();
        if handles.is_err() {
            inboxes.stop();
        }
        for handle in handles.context("starting a thread")? {
            match handle.join() {
                Ok(outcome) => outcomes.extend(outcome.context("waiting for the device")?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        progress.end();
        anyhow::Ok(())
    })?;
    anyhow::ensure!(outcomes.len() == orders.len(), "a job was stopped before its end");
    Ok(outcomes)
}

/// Puts together what is to be reported as one.
fn report(group: u32, clones: &[Clone<'_>], outcomes: Vec<Outcome>, reports: &mut Vec<JobReport>) {
    for (clone, outcome) in clones.iter().zip(outcomes) {
        let together = reports.last_mut().filter(|last| {
            last.group == group && last.job.group_reporting && clone.job.group_reporting
        });
        match together {
            Some(last) => {
                last.clones += 1;
                last.error = if last.error == 0 { outcome.error } else { last.error };
                last.elapsed = last.elapsed.max(outcome.elapsed);
                last.stats.add(&outcome.stats);
            }
            None => reports.push(JobReport {
                job: clone.job.clone(),
                group,
                clones: 1,
                error: outcome.error,
                elapsed: outcome.elapsed,
                stats: outcome.stats,
            }),
        }
    }
}

fn complain(what: impl Into<String>, mend: impl Into<String>) -> Complaint {
    Complaint {
        source: "blkmq bench".to_owned(),
        place: None,
        what: what.into(),
        mend: mend.into(),
    }
}

#[cfg(test)]
mod tests;
