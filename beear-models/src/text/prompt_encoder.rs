//! Encoding of texts with a prompt format, and location of the user's words among the tokens.

use std::collections::HashMap;
use std::ops::Range;

use crate::text::chat::{Message, Renderer, TemplateSource};
use crate::text::large_stack;
use crate::text::prompt_format::{
    EncodedChat, EncodedPrompt, PLACEHOLDER, PromptFormat, PromptFormatError,
};
use crate::text::text_stage::TextStage;
use crate::text::tokenizer::{ByteRange, TextTokenizer};

/// Placeholder for locating the user's text; private-use characters, so that no template contains
/// it.
const PROBE: &str = "\u{f8f0}probe\u{f8f1}";

impl PromptFormat {
    /// Encodes one request, up to the start of the answer.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError`] if the template refuses the text or the text cannot be found.
    pub fn encode(
        &self,
        tokenizer: &TextTokenizer,
        prompt: &str,
        system: Option<&str>,
    ) -> Result<EncodedPrompt, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.prompt(prompt, system))
    }

    /// Encodes a conversation, up to the start of the next answer; a single question is encoded as
    /// in [`encode`](Self::encode).
    ///
    /// A pattern describes one turn; every later turn is formatted like the first, after the
    /// previous answer.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError`] if the last turn is not the user's, or the template refuses
    /// the conversation.
    pub fn encode_chat(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
    ) -> Result<EncodedChat, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.chat(messages))
    }

    /// Encodes an answer with exactly one end of sequence, if the model has one.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError::Tokenizer`] if the tokenizer fails.
    pub fn encode_answer(
        &self,
        tokenizer: &TextTokenizer,
        answer: &str,
    ) -> Result<Vec<u32>, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.answer(answer))
    }
}

/// Encoder of many texts: the template is compiled once, and rendered once to locate the user's
/// text.
pub(crate) struct PromptEncoder<'a> {
    format: &'a PromptFormat,
    tokenizer: &'a TextTokenizer,
    renderer: Renderer<'a>,
    /// Rendering of the probe by system prompt; only the last one, because the rows of a set have
    /// the same system prompt.
    probed: HashMap<Option<String>, String>,
    /// Callback at the start of each stage.
    begins: &'a dyn Fn(TextStage),
}

impl<'a> PromptEncoder<'a> {
    pub(crate) fn new(
        (format, source): (&'a PromptFormat, &'a TemplateSource),
        tokenizer: &'a TextTokenizer,
        begins: &'a dyn Fn(TextStage),
    ) -> Self {
        Self { format, tokenizer, renderer: Renderer::new(source), probed: HashMap::new(), begins }
    }

    /// Calls `encode` with a new encoder, on a large stack.
    ///
    /// # Errors
    ///
    /// Returns the errors of `encode`, and an error if it panics.
    pub(crate) fn with<T: Send>(
        format: &PromptFormat,
        tokenizer: &TextTokenizer,
        encode: impl FnOnce(&mut PromptEncoder<'_>) -> Result<T, PromptFormatError> + Send,
    ) -> Result<T, PromptFormatError> {
        let encode = || {
            let source = TemplateSource::new(format.text());
            encode(&mut PromptEncoder::new((format, &source), tokenizer, &|_| ()))
        };
        large_stack::run(encode).unwrap_or_else(|| Err(PromptFormatError::engine_broken()))
    }

    /// Encodes a request, see [`PromptFormat::encode`].
    pub(crate) fn prompt(
        &mut self,
        prompt: &str,
        system: Option<&str>,
    ) -> Result<EncodedPrompt, PromptFormatError> {
        let text = self.render(prompt, system)?;
        let said = self.locate(&text, prompt, system)?;
        let (mut tokens, offsets) = self.encode(&text)?;
        let inside = |&(from, to): &(usize, usize)| from < said.end && to > said.start;
        let before = offsets.iter().take_while(|(_, to)| *to <= said.start).count();
        let first = offsets.iter().position(inside).unwrap_or(before);
        let after = offsets.iter().rposition(inside).map_or(first, |last| last + 1);
        let mut user = (first, after);

        let moved = begin_once(&mut tokens, self.tokenizer);
        user = (user.0.saturating_add_signed(moved), user.1.saturating_add_signed(moved));
        Ok(EncodedPrompt { text, tokens, user })
    }

    /// Encodes a conversation, see [`PromptFormat::encode_chat`].
    pub(crate) fn chat(&mut self, messages: &[Message]) -> Result<EncodedChat, PromptFormatError> {
        if messages.last().is_none_or(|message| message.role != "user") {
            let reason = "the last turn is not the user's".to_owned();
            return Err(PromptFormatError::Template { reason });
        }
        let PromptFormat::Pattern(_) = self.format else {
            let text = self.render_chat(messages)?;
            let (mut tokens, _) = self.encode(&text)?;
            begin_once(&mut tokens, self.tokenizer);
            return Ok(EncodedChat { text, tokens });
        };
        let (mut text, mut tokens, mut system) = (String::new(), Vec::new(), None);
        for Message { role, content } in messages {
            match role.as_str() {
                "system" => system = Some(content.as_str()),
                "user" => {
                    let turn = self.render(content, system.take())?;
                    let (mut asked, _) = self.encode(&turn)?;
                    text.push_str(&turn);
                    if tokens.is_empty() {
                        begin_once(&mut asked, self.tokenizer);
                    }
                    tokens.extend(asked);
                }
                _ => {
                    text.push_str(content);
                    text.push_str(&self.tokenizer.eos);
                    tokens.extend(self.answer(content)?);
                }
            }
        }
        Ok(EncodedChat { text, tokens })
    }

    /// Encodes an answer, see [`PromptFormat::encode_answer`].
    pub(crate) fn answer(&mut self, answer: &str) -> Result<Vec<u32>, PromptFormatError> {
        let (mut tokens, _) = self.encode(answer)?;
        if let Some(eos) = self.tokenizer.id(&self.tokenizer.eos) {
            while tokens.last() == Some(&eos) {
                tokens.pop();
            }
            tokens.push(eos);
        }
        Ok(tokens)
    }

    /// Returns the byte range of the user's words in `text`, without surrounding white space.
    ///
    /// Searching for the words alone would find `A` in `ASSISTANT:`, so the text is compared with
    /// the rendering of a probe.
    fn locate(
        &mut self,
        text: &str,
        prompt: &str,
        system: Option<&str>,
    ) -> Result<Range<usize>, PromptFormatError> {
        let said = prompt.trim();
        let probed = self.probed(system)?;
        let (before, after) = probed.rsplit_once(PROBE).ok_or(PromptFormatError::UserTextLost)?;
        let body = text.strip_suffix(after).unwrap_or(text);
        let inner = body.strip_prefix(before).filter(|inner| inner.trim() == said);
        let start = match inner {
            Some(inner) => before.len() + inner.len() - inner.trim_start().len(),
            // The rendering around a text may depend on the text.
            None => body.rfind(said).ok_or(PromptFormatError::UserTextLost)?,
        };
        Ok(start..start + said.len())
    }

    /// Returns the rendering of the probe with a system prompt.
    fn probed(&mut self, system: Option<&str>) -> Result<&str, PromptFormatError> {
        let key = system.map(str::to_owned);
        if !self.probed.contains_key(&key) {
            let rendered = self.render(PROBE, system)?;
            self.probed.clear();
            self.probed.insert(key.clone(), rendered);
        }
        Ok(&self.probed[&key])
    }

    fn render(&self, prompt: &str, system: Option<&str>) -> Result<String, PromptFormatError> {
        match self.format {
            PromptFormat::Pattern(pattern) => {
                let system = system.map(|system| format!("{system}\n\n")).unwrap_or_default();
                Ok(pattern.replacen(PLACEHOLDER, &format!("{system}{prompt}"), 1))
            }
            PromptFormat::ChatTemplate(_) => {
                let system = system.map(|content| Message {
                    role: "system".to_owned(),
                    content: content.to_owned(),
                });
                let messages: Vec<Message> =
                    system.into_iter().chain([Message::user(prompt)]).collect();
                self.render_chat(&messages)
            }
        }
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String, PromptFormatError> {
        (self.begins)(TextStage::Template);
        let rendered = self.renderer.render(messages, [&self.tokenizer.bos, &self.tokenizer.eos]);
        rendered.map_err(|reason| PromptFormatError::Template { reason })
    }

    fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<ByteRange>), PromptFormatError> {
        (self.begins)(TextStage::Tokenizer);
        Ok(self.tokenizer.encode(text)?)
    }
}

/// Gives `tokens` exactly one beginning of sequence, if the model has one, and returns the shift of
/// all other tokens. The result is equal for templates that write the token and templates that
/// leave it to the tokenizer.
fn begin_once(tokens: &mut Vec<u32>, tokenizer: &TextTokenizer) -> isize {
    let Some(bos) = tokenizer.id(&tokenizer.bos) else { return 0 };
    match tokens.iter().take_while(|token| **token == bos).count() {
        0 => {
            tokens.insert(0, bos);
            1
        }
        doubled => {
            tokens.drain(1..doubled);
            1 - doubled as isize
        }
    }
}
