//! `beear doctor`: the backends and devices that this binary can use, and how to get others.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::backend::registry::{BackendState, Backends, MOST_DEVICES};
use crate::display::console::Console;
use crate::memory::bytes;
use crate::memory::process::machine_memory;
use crate::model::text_process::{IS_MEMORY_LIMITED, Limits};

/// Lists the backends and devices, and says which are missing and how to get them.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {}

/// Backends behind features, with their requirements on the machine.
const FEATURES: [(&str, &str); 4] = [
    ("flex", "any processor"),
    ("ndarray", "any processor"),
    ("cuda", "an NVIDIA GPU with its driver, and the CUDA toolkit's headers and NVRTC"),
    ("wgpu", "a GPU with a Vulkan, Metal or DirectX 12 driver"),
];

pub(crate) fn run(backends: &Backends, console: Console) -> Result<()> {
    let states = backends.states();
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = machine_memory();
    let missing = missing(&states);
    let limits = Limits::of_environment()?;
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "backends": states.iter().map(as_json).collect::<Vec<_>>(),
        "not_compiled_in": missing.iter().map(|(name, needs)| json!({
            "name": name, "needs": needs, "command": install(name),
        })).collect::<Vec<_>>(),
        "threads": n_threads,
        "text": {
            "seconds": limits.deadline.as_secs_f64(),
            "memory": IS_MEMORY_LIMITED.then_some(limits.memory),
        },
        "memory": memory.map(|[total, available]| json!({"total": total, "available": available})),
    });

    let mut lines = vec![format!("beear {}", env!("CARGO_PKG_VERSION"))];
    for (k, state) in states.iter().enumerate() {
        let default = if k == 0 { ", the default" } else { "" };
        lines.push(format!("backend {}: {}{default}", state.name, condition(state)));
        lines.extend(state.fault.as_ref().map(|fault| format!("  {}", fault.hint)));
    }
    for (name, needs) in &missing {
        lines.push(format!("backend {name}: not compiled in; it needs {needs}"));
        lines.push(format!("  {}", install(name)));
    }
    lines.push(format!("threads: {n_threads}"));
    lines.push(match memory {
        Some([total, available]) => {
            let [total, available] = [total, available].map(bytes::show);
            format!("memory: {total}, of which {available} are available")
        }
        None => "memory: this system does not say in /proc/meminfo".to_owned(),
    });
    let seconds = limits.deadline.as_secs_f64();
    let memory = if IS_MEMORY_LIMITED {
        format!("{} MiB of memory", limits.mebibytes())
    } else {
        "memory without a limit, which this system does not have".to_owned()
    };
    lines.push(format!("templates and tokenizers of models: {seconds} s for a text, {memory}"));
    console.result(&lines.join("\n"), &value)
}

/// Returns the backends behind features that are not in this binary.
fn missing(states: &[BackendState]) -> Vec<(&'static str, &'static str)> {
    let compiled = |name: &str| states.iter().any(|state| state.name == name);
    FEATURES.into_iter().filter(|(name, _)| !compiled(name)).collect()
}

/// Returns the command that builds the binary with a backend.
fn install(name: &str) -> String {
    format!("cargo install --locked --path beear-cli --features {name}")
}

/// Returns the number of devices, if it is known without using them.
fn n_devices(state: &BackendState) -> Option<usize> {
    (state.n_devices < MOST_DEVICES).then_some(state.n_devices)
}

fn condition(state: &BackendState) -> String {
    let bits = 8 * state.width;
    match (&state.fault, n_devices(state)) {
        (Some(fault), _) => format!("not now, {}", fault.reason),
        (None, Some(1)) => format!("ready, 1 device, {bits} bits a weight"),
        (None, Some(n)) => format!("ready, {n} devices, {bits} bits a weight"),
        (None, None) => format!("devices are known once one is used, {bits} bits a weight"),
    }
}

fn as_json(state: &BackendState) -> Value {
    json!({
        "name": state.name,
        "available": state.fault.is_none(),
        "devices": n_devices(state),
        "bits": 8 * state.width,
        "reason": state.fault.as_ref().map(|fault| &fault.reason),
        "hint": state.fault.as_ref().map(|fault| &fault.hint),
    })
}
