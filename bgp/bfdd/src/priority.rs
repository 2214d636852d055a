//! Makes the kernel run the engine's thread when it has to run.
//!
//! Owns what is asked of the kernel. All of it is a favour: what is not granted is told, and the
//! thread runs without.

use nix::sys::mman::{MlockAllFlags, mlockall};
use thread_priority::unix::set_thread_priority_and_policy;
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    thread_native_id,
};

/// Raises the calling thread; says in words what came of it.
///
/// The least of the real-time priorities is above every ordinary thread, and the engine never asks
/// for more than a moment. Where the kernel keeps real time to itself (as it does inside cgroups
/// under `CONFIG_RT_GROUP_SCHED`), the nicest ordinary priority is the next best.
pub(crate) fn raise() -> String {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let normal = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let thread = thread_native_id();
    let scheduling = match set_thread_priority_and_policy(thread, ThreadPriority::Min, fifo) {
        Ok(()) => "real time (SCHED_FIFO, priority 1)".to_owned(),
        Err(no_real_time) => {
            match set_thread_priority_and_policy(thread, ThreadPriority::Max, normal) {
                Ok(()) => format!("nice -20 (no real time: {})", explain(&no_real_time)),
                Err(error) => format!("as any other (no priority: {})", explain(&error)),
            }
        }
    };
    // What is mapped now stays once it has been touched: the engine must not wait for a disk. Not
    // what will be mapped later, since beyond RLIMIT_MEMLOCK that would fail.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    match mlockall(MlockAllFlags::MCL_CURRENT | on_fault) {
        Ok(()) => format!("{scheduling}, memory locked"),
        Err(error) => format!("{scheduling}, memory not locked: {}", error.desc()),
    }
}

fn explain(error: &thread_priority::Error) -> String {
    match error {
        thread_priority::Error::OS(code) => nix::errno::Errno::from_raw(*code).desc().to_owned(),
        other => format!("{other:?}"),
    }
}
