//! What the system knows of a running process.

use std::fs;

use crate::Fallible;

/// Linux reports processor time in hundredths of a second, whatever the kernel's own tick is.
const TICKS: f64 = 100.0;

/// Processor time of a process since it began, in milliseconds, its ended children not included.
pub fn cpu_ms(pid: u32) -> Fallible<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in brackets and may hold anything; what follows is numbers.
    let after = stat.rsplit_once(')').ok_or("odd /proc/pid/stat")?.1;
    let field = |index: usize| -> Fallible<f64> {
        Ok(after.split_whitespace().nth(index).ok_or("short /proc/pid/stat")?.parse()?)
    };
    Ok((field(11)? + field(12)?) * 1000.0 / TICKS)
}

/// Resident memory of a process, in megabytes of a million bytes.
pub fn resident_mb(pid: u32) -> Fallible<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
}

/// Device, type and folder of the file system that holds this folder.
pub fn file_system(folder: &std::path::Path) -> Fallible<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let holding = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, on, _)| folder.starts_with(on))
        .max_by_key(|(_, on, _)| on.len());
    let (device, on, kind) = holding.ok_or("no file system holds the folder")?;
    Ok(format!("{kind} on {device}, mounted at {on}"))
}

/// The machine in one line: processor, its cores, memory, kernel.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    format!(
        "{}, {} cores, {:.0} GB, Linux {}",
        model.map_or("unknown processor", |(_, name)| name),
        std::thread::available_parallelism().map_or(0, usize::from),
        kib.unwrap_or(0.0) * 1024.0 / 1e9,
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// How many processes wanted a processor in the last minute: company spoils a measurement.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
