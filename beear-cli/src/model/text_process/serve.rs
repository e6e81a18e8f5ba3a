//! Child's side of the text process: reads the tokenizer, then texts, and answers each of them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use beear_models::{
    InProcess, TextEngine, TextStage, TextTask, TextTokenizer, TokenizerError, TokenizerFiles,
};

use super::frame::{self, Ready, Reply, Start};
use super::limits::MemoryBound;

/// Environment variable that tells a program that it is the child.
pub(super) const CHILD: &str = "BEEAR_TEXT_PROCESS";

/// Longest time that a reply waits to be sent together with others. It is far below any deadline.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// Serves the parent if this process is a child. Returns `None` otherwise.
pub(crate) fn serve_if_child() -> Option<ExitCode> {
    std::env::var_os(CHILD)?;
    // The parent sees an error here as the end of the pipe.
    Some(serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

fn serve() -> io::Result<()> {
    let mut from = BufReader::new(io::stdin());
    let Some(Start { memory, format, special }) = frame::read(&mut from)? else { return Ok(()) };
    // The reserve is the fixed size of the stack, which fits however much memory the tokenizer
    // takes.
    let bound = MemoryBound::set(memory, InProcess::STACK_BYTES);
    let place = Place::reserve()?;
    let Some(tokenizer) = frame::read_bytes(&mut from)? else { return Ok(()) };
    let waiting = read_tasks(from);
    let mut to = BufWriter::new(io::stdout());
    let tokenizer =
        match TextTokenizer::new(TokenizerFiles { path: PathBuf::new(), tokenizer, special }) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                let reason = match error {
                    TokenizerError::Malformed { reason, .. } => reason,
                    error => error.to_string(),
                };
                frame::write(&mut to, &Ready::Malformed { reason })?;
                return to.flush();
            }
        };
    let engine = InProcess::new(tokenizer, format);
    let ready = Ready::Yes {
        stop_ids: engine.stop_ids().to_vec(),
        unknown_id: engine.unknown_id(),
        vocab_size: engine.vocab_size(),
    };
    frame::write(&mut to, &ready)?;
    to.flush()?;
    bound.release_reserve();
    answer(&engine, (waiting, to), &place);
    Ok(())
}

/// Answers every task. A reply is sent at once if no task is waiting, and a little later otherwise,
/// because sending wakes the parent, which takes longer than a short text.
fn answer(
    engine: &InProcess,
    (waiting, to): (Receiver<TextTask>, BufWriter<io::Stdout>),
    place: &Place,
) {
    let to = &Mutex::new((to, Instant::now()));
    let sending = || to.lock().unwrap_or_else(PoisonError::into_inner);
    let tasks = std::iter::from_fn(move || {
        let task = waiting.try_recv().ok().or_else(|| {
            sending().0.flush().ok()?;
            waiting.recv().ok()
        });
        place.next_task();
        task
    });
    let reply = |output| {
        let (to, last_sent) = &mut *sending();
        let written = frame::write(to, &Reply::from(output)).and_then(|()| {
            if last_sent.elapsed() < LONGEST_WAIT {
                return Ok(());
            }
            *last_sent = Instant::now();
            to.flush()
        });
        written.is_ok()
    };
    if let Err(error) = engine.serve(tasks, &|stage| place.begin(stage), reply) {
        let (to, _) = &mut *sending();
        let _ = frame::write(to, &Reply::from(Err(error))).and_then(|()| to.flush());
    }
}

/// Reads tasks on a separate thread, so that the parent never waits, and the end of the parent is
/// noticed even if a text takes forever.
fn read_tasks(mut from: BufReader<io::Stdin>) -> Receiver<TextTask> {
    let (sender, tasks) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(task)) = frame::read(&mut from) {
            if sender.send(task).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    tasks
}

/// Position of the child in its work, in the first bytes of the file that is its standard error.
/// The parent reads it once the child is dead. The messages of a crash follow it.
struct Place {
    file: File,
    n_begun: AtomicU64,
}

/// Size of a place in bytes: the stage, and the number of tasks that have begun.
pub(super) const PLACE_BYTES: usize = 9;

impl Place {
    fn reserve() -> io::Result<Self> {
        io::stderr().write_all(&[0; PLACE_BYTES])?;
        #[cfg(unix)]
        let file = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?;
        #[cfg(windows)]
        let file = std::os::windows::io::AsHandle::as_handle(&io::stderr()).try_clone_to_owned()?;
        Ok(Self { file: file.into(), n_begun: AtomicU64::new(0) })
    }

    fn next_task(&self) {
        self.n_begun.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&self, stage: TextStage) {
        let mut bytes = [u8::from(stage == TextStage::Template); PLACE_BYTES];
        bytes[1..].copy_from_slice(&self.n_begun.load(Ordering::Relaxed).to_le_bytes());
        // If this fails, error messages are less exact.
        #[cfg(unix)]
        let _ = std::os::unix::fs::FileExt::write_at(&self.file, &bytes, 0);
        #[cfg(windows)]
        let _ = std::os::windows::fs::FileExt::seek_write(&self.file, &bytes, 0);
    }
}
