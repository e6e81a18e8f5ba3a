//! Parent's side of the text process: sends tasks to the child and kills it at its limits.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};

use beear_models::text::text_engine::TaskFailed;
use beear_models::{
    PromptFormat, TextEngine, TextEngineError, TextOutput, TextStage, TextTask, TokenizerError,
    TokenizerFiles,
};

use super::Limits;
use super::frame::{self, Ready, Reply, Start};
use super::serve::{CHILD, PLACE_BYTES};

/// Maximum number of bytes of tasks that wait in the child: many texts, so that the child never
/// waits for the parent, and little memory.
const WINDOW: usize = 256 << 10;

/// Environment variables that a program may need to start. The child gets no others, and so no keys
/// and no tokens.
const NEEDED_VARIABLES: [&str; 5] =
    ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SYSTEMROOT"];

/// Reason why the child is not ready.
pub(super) enum NotReady {
    /// The child reports that `tokenizer.json` is malformed.
    Tokenizer(TokenizerError),
    /// The child does not answer.
    Engine(TextEngineError),
}

/// Text engine of one model in a process of its own.
#[derive(Debug)]
pub(super) struct Child {
    stop_ids: Vec<u32>,
    unknown_id: Option<u32>,
    vocab_size: usize,
    pipes: Mutex<Pipes>,
}

impl Child {
    /// Starts this program again as a child that has read `files`.
    ///
    /// # Errors
    ///
    /// [`NotReady`].
    pub(super) fn start(
        files: TokenizerFiles,
        format: PromptFormat,
        limits: Limits,
    ) -> Result<Self, NotReady> {
        let TokenizerFiles { path, tokenizer, special } = files;
        let start = Start { memory: limits.memory, format, special };
        let ready = Pipes::open(limits).and_then(|mut pipes| {
            let sent = frame::write(&mut pipes.to, &start)
                .and_then(|()| frame::write_bytes(&mut pipes.to, &tokenizer))
                .and_then(|()| pipes.to.flush());
            // If the child is dead, its standard error tells the reason.
            let _ = sent;
            let ready = pipes.receive(TextStage::Tokenizer)?;
            Ok((pipes, ready))
        });
        let (pipes, ready) = ready.map_err(NotReady::Engine)?;
        match serde_json::from_slice(&ready) {
            Ok(Ready::Yes { stop_ids, unknown_id, vocab_size }) => {
                Ok(Self { stop_ids, unknown_id, vocab_size, pipes: Mutex::new(pipes) })
            }
            Ok(Ready::Malformed { reason }) => {
                Err(NotReady::Tokenizer(TokenizerError::Malformed { path, reason }))
            }
            Err(_) => Err(NotReady::Engine(not_started("another program has answered"))),
        }
    }
}

impl TextEngine for Child {
    fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    fn unknown_id(&self) -> Option<u32> {
        self.unknown_id
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn run(&self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner).run(tasks)
    }
}

/// A running child with its pipes.
#[derive(Debug)]
struct Pipes {
    child: process::Child,
    to: BufWriter<ChildStdin>,
    /// Messages of the child, read on a separate thread because a pipe has no deadline.
    from: Receiver<Vec<u8>>,
    /// Standard error of the child. It begins with the child's place.
    errors: File,
    limits: Limits,
    /// Number of tasks of all earlier calls.
    n_done: u64,
    /// Number of pending replies that are discarded: those to the tasks after a failed one.
    n_stale: usize,
    /// Cause of the child's death, if it is dead.
    dead: Option<Death>,
}

/// The end of a child.
#[derive(Clone, Debug)]
struct Death {
    stage: TextStage,
    cause: Cause,
    /// Number of tasks that the child had begun.
    n_begun: u64,
}

#[derive(Clone, Debug)]
enum Cause {
    Deadline,
    Memory,
    Other(String),
}

impl Pipes {
    fn open(limits: Limits) -> Result<Self, TextEngineError> {
        let open = || -> io::Result<Self> {
            let errors = tempfile::tempfile()?;
            let mut command = program()?;
            command.env_clear().env(CHILD, "1");
            for name in NEEDED_VARIABLES {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors.try_clone()?);
            let mut child = command.spawn()?;
            let to = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let from = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let (to, from) = (BufWriter::new(to), read_messages(from));
            Ok(Self { child, to, from, errors, limits, n_done: 0, n_stale: 0, dead: None })
        };
        open().map_err(|error| not_started(&error.to_string()))
    }

    fn run(&mut self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed> {
        let mut outputs = Vec::with_capacity(tasks.len());
        let (mut sizes, mut n_sent, mut n_waiting) = (Vec::new(), 0, 0);
        while outputs.len() < tasks.len() {
            // At least one task is sent, however long it is.
            while n_sent < tasks.len() && (n_sent == outputs.len() || n_waiting < WINDOW) {
                let Ok(message) = serde_json::to_vec(&tasks[n_sent]) else { break };
                // A dead child is detected when it does not answer.
                let _ = frame::write_bytes(&mut self.to, &message);
                n_waiting += message.len();
                sizes.push(message.len());
                n_sent += 1;
            }
            let _ = self.to.flush();
            let stage = stage_of(&tasks[outputs.len()]);
            let failed = |task, error| Err(TaskFailed { task, error });
            let message = match self.receive(stage) {
                Ok(message) => message,
                Err(error) => return failed(self.begun(&outputs, tasks), error),
            };
            n_waiting -= sizes[outputs.len()];
            let reply: Result<Reply, _> = serde_json::from_slice(&message);
            match reply.map(Result::from) {
                Ok(Ok(output)) => outputs.push(output),
                Ok(Err(error)) => {
                    let task = outputs.len();
                    self.n_stale += n_sent - task - 1;
                    self.n_done += n_sent as u64;
                    return failed(task, error.into());
                }
                Err(error) => return failed(outputs.len(), not_started(&error.to_string())),
            }
        }
        self.n_done += tasks.len() as u64;
        Ok(outputs)
    }

    /// Returns the index of the task that killed the child.
    fn begun(&self, outputs: &[TextOutput], tasks: &[TextTask]) -> usize {
        let n_begun = self.dead.as_ref().map_or(0, |death| death.n_begun);
        let index = n_begun.saturating_sub(self.n_done + 1) as usize;
        index.clamp(outputs.len(), tasks.len() - 1)
    }

    /// Receives the next message. A child that is silent for longer than the deadline is killed.
    fn receive(&mut self, stage: TextStage) -> Result<Vec<u8>, TextEngineError> {
        while self.dead.is_none() {
            match self.from.recv_timeout(self.limits.deadline) {
                Ok(_) if self.n_stale > 0 => self.n_stale -= 1,
                Ok(message) => return Ok(message),
                Err(error) => self.dead = Some(self.bury(error, stage)),
            }
        }
        Err(self.dead.as_ref().map_or_else(|| not_started("it is gone"), |d| self.reason(d)))
    }

    /// Kills the child if it lives, and determines the cause from its standard error.
    fn bury(&mut self, error: RecvTimeoutError, stage: TextStage) -> Death {
        let _ = self.child.kill();
        let status = self.child.wait();
        let mut left = Vec::new();
        let read = self.errors.seek(SeekFrom::Start(0));
        let _ = read.and_then(|_| (&self.errors).take(1 << 16).read_to_end(&mut left));
        let Some((place, text)) = left.split_at_checked(PLACE_BYTES) else {
            let how =
                format!("it ends before it begins: {}", String::from_utf8_lossy(&left).trim());
            return Death { stage, cause: Cause::Other(how), n_begun: 0 };
        };
        let text = String::from_utf8_lossy(text);
        let n_begun = place[1..].try_into().map_or(0, u64::from_le_bytes);
        let stage = if place[0] == 1 { TextStage::Template } else { TextStage::Tokenizer };
        let cause = if error == RecvTimeoutError::Timeout {
            Cause::Deadline
        } else if text.contains("memory allocation of") {
            Cause::Memory
        } else if text.contains("overflowed its stack") {
            Cause::Other("it is nested too deep for the stack".to_owned())
        } else {
            Cause::Other(status.map_or_else(|error| error.to_string(), |status| status.to_string()))
        };
        Death { stage, cause, n_begun }
    }

    fn reason(&self, Death { stage, cause, .. }: &Death) -> TextEngineError {
        let stage = *stage;
        match cause {
            Cause::Deadline => {
                let seconds = self.limits.deadline.as_secs_f64();
                TextEngineError::Deadline { stage, seconds }
            }
            Cause::Memory => TextEngineError::Memory { stage, mebibytes: self.limits.mebibytes() },
            Cause::Other(how) => TextEngineError::Died { stage, how: how.clone() },
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        // The child does nothing that is worth waiting for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that starts this program again.
fn program() -> io::Result<Command> {
    // The file of a running program may be replaced. This path still refers to the program.
    let path = std::path::PathBuf::from("/proc/self/exe");
    let path = if path.exists() { path } else { std::env::current_exe()? };
    let mut command = Command::new(path);
    command.arg("text-process");
    // The child has a process group of its own, so that keys that stop the parent do not reach it.
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.arg0("beear").process_group(0);
    }
    #[cfg(windows)]
    {
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(
            &mut command,
            CREATE_NEW_PROCESS_GROUP,
        );
    }
    Ok(command)
}

/// Reads messages until the pipe ends.
fn read_messages(from: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, messages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        while let Ok(Some(message)) = frame::read_bytes(&mut from) {
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    messages
}

/// Returns the stage that decides how long a task takes, as far as the parent can tell.
fn stage_of(task: &TextTask) -> TextStage {
    match task {
        TextTask::Prompt(_) | TextTask::Row { .. } => TextStage::Template,
        TextTask::Decode(_) | TextTask::Vocabulary => TextStage::Tokenizer,
    }
}

fn not_started(reason: &str) -> TextEngineError {
    TextEngineError::NotStarted { reason: reason.to_owned() }
}
