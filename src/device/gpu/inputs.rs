//! A step as the kernels see it: one buffer with a section for each list, at fixed addresses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;

use super::abi::{NONE, ResultWords, SampleWords, SpanWords, VoidRowsParams, row_bytes};
use super::device::GpuDevice;
use super::ops::candidates::CandidateLists;
use super::padding::{SPLIT, bucket, context_bucket};
use super::runtime::{GpuRuntime, Launch, Role, Stream};
use super::sections::{Section, Sections, WindowedSections};
use crate::contrast::Vocabulary;
use crate::device::trace::Trace;
use crate::device::types::attention::{LayerKind, PerKind};
use crate::device::types::batch::{Batch, Capacity, RowResult, SampleRow, Span};
use crate::device::types::logits::Projections;
use crate::device::types::pass::Pass;
use crate::error::{Error, Result};
use crate::ids::TokenId;

/// Memory that the kernels of both roles read. On two GPUs each has a copy of the same bytes.
struct Shared<R: GpuRuntime> {
    memory: R::Memory,
    /// The amateur's copy.
    mirror: Option<R::Memory>,
}

impl<R: GpuRuntime> Shared<R> {
    fn new(runtime: &R, bytes: usize) -> Result<Self> {
        let mirror = runtime.is_split().then(|| runtime.allocate(Role::Amateur, bytes)).transpose()?;
        Ok(Self { memory: runtime.allocate(Role::Expert, bytes)?, mirror })
    }

    fn address(&self, runtime: &R, role: Role) -> u64 {
        let mirror = self.mirror.as_ref().filter(|_| role == Role::Amateur);
        runtime.address(mirror.unwrap_or(&self.memory))
    }

    /// Queues a write on the expert's stream, and one of the amateur's copy if there is one. Work of both roles that
    /// was queued before, replays included, still reads the old bytes.
    fn write(&self, runtime: &R, bytes: &[u8]) {
        let (expert, amateur) = (Stream::Main(Role::Expert), Stream::Main(Role::Amateur));
        runtime.write(Role::Expert, &self.memory, bytes);
        if let Some(mirror) = &self.mirror {
            runtime.order(expert, amateur);
            runtime.write(Role::Amateur, mirror, bytes);
            runtime.order(amateur, expert);
        }
    }

    /// Copies to the amateur's memory what the kernels have written to the expert's.
    fn update_mirror(&self, runtime: &R, bytes: usize) {
        if let Some(mirror) = self.mirror.as_ref().filter(|_| bytes > 0) {
            runtime.copy(Role::Expert, &self.memory, mirror, bytes);
        }
    }
}

/// Which of the amateur's logits some row of a step needs, by what is known before the step runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct NeededLogits {
    /// The logits of the candidates.
    pub candidates: bool,
    /// All of them: all tokens are candidates, or a log-probability is wanted.
    pub all: bool,
}

impl NeededLogits {
    fn of(rows: &[SampleRow]) -> Self {
        let mut needed = Self::default();
        for row in rows.iter().filter(|row| row.contrast.needs_amateur()) {
            let keeps_all = row.contrast.alpha == 0.0;
            needed.candidates |= !keeps_all;
            needed.all |= keeps_all || row.log_probabilities;
        }
        needed
    }
}

/// See [`crate::device::Device::Step`].
///
/// A step in which every span is one token is padded to a [`bucket`] if there is room. Few sizes then occur, and the
/// runtime can replay what it recorded. Padded rows have slot `NONE`, padded spans context 0 and padded samples
/// position `NONE`; kernels skip all three.
pub struct Step<R: GpuRuntime> {
    /// The number of this step in the process. A recording holds addresses, and these are of one step.
    id: u64,
    /// Whether all spans take the same kernels, so that a token's numbers do not depend on how its sequence is cut
    /// into steps.
    is_uniform: bool,
    sections: Sections,
    /// The most rows of a step in which every span is one token.
    max_decode_rows: usize,
    block_size: usize,
    /// Tokens of the vocabulary, without padding.
    pub vocabulary: usize,
    /// `[special]` u32, ascending; [`Step::special_count`] of them.
    special: R::Memory,
    special_count: usize,
    /// The sections.
    buffer: Shared<R>,
    /// Where there are layers with a window, what they have instead of `slots` and `blocks`.
    windowed: Option<(Shared<R>, WindowedSections)>,
    /// `[outputs]` [`ResultWords`] of the current step; those of the previous step until they are overwritten.
    results: Shared<R>,
    /// What the sampling kernels pass on to each other, [`row_bytes`] per output.
    tiles: R::Memory,
    /// The candidates of outputs that are sampled together.
    pub candidates: CandidateLists<R>,
    /// Rows of the step at hand, padding included.
    pub tokens: usize,
    /// Spans of the step at hand, padding included.
    pub spans: usize,
    /// Spans that the prefill kernel computes: those of more than one token, or all.
    pub prefills: usize,
    /// The longest span of the step at hand.
    pub longest_span: usize,
    /// The longest context of the step at hand, padded if the step is.
    pub longest_context: usize,
    /// Outputs of the step at hand, padding included.
    pub outputs: usize,
    /// Outputs of the step at hand without padding.
    wanted: usize,
    /// Which of the amateur's logits the step at hand needs.
    pub needed_logits: NeededLogits,
    is_padded: bool,
    /// Results that are being copied to the host, oldest step first.
    pending: VecDeque<R::Pending>,
    /// The times at which steps began and ended.
    pub trace: Trace<R::Mark>,
}

impl<R: GpuRuntime> Step<R> {
    /// See [`crate::device::Device::step`].
    pub fn new(
        runtime: &R,
        capacity: Capacity,
        table_blocks: PerKind<usize>,
        vocabulary: &Vocabulary,
        is_uniform: bool,
    ) -> Result<Self> {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        let Capacity { max_num_seqs, max_num_batched_tokens, block_size } = capacity;
        let sections = Sections::new(capacity, table_blocks.full);
        let windowed = (table_blocks.windowed > 0).then(|| {
            let sections = WindowedSections::new(capacity, table_blocks.windowed);
            Ok::<_, Error>((Shared::new(runtime, sections.bytes())?, sections))
        });
        let special: Vec<u32> = vocabulary.special.iter().map(|token| token.0).collect();
        let special_memory = runtime.allocate(Role::Expert, size_of_val(special.as_slice()).max(4))?;
        runtime.write(Role::Expert, &special_memory, bytemuck::cast_slice(&special));
        Ok(Self {
            id: STEPS.fetch_add(1, Ordering::Relaxed),
            is_uniform,
            max_decode_rows: max_num_batched_tokens.min(max_num_seqs),
            block_size,
            vocabulary: vocabulary.len,
            special: special_memory,
            special_count: special.len(),
            buffer: Shared::new(runtime, sections.bytes())?,
            windowed: windowed.transpose()?,
            results: Shared::new(runtime, max_num_seqs * size_of::<ResultWords>())?,
            tiles: runtime.allocate(Role::Expert, max_num_seqs * row_bytes(vocabulary.len))?,
            candidates: CandidateLists::new(runtime, max_num_seqs, vocabulary.len)?,
            sections,
            tokens: 0,
            spans: 0,
            prefills: 0,
            longest_span: 0,
            longest_context: 0,
            outputs: 0,
            wanted: 0,
            needed_logits: NeededLogits::default(),
            is_padded: false,
            pending: VecDeque::new(),
            trace: Trace::off(),
        })
    }

    /// See [`crate::device::Device::prepare`].
    pub fn prepare(&mut self, runtime: &R, batch: &Batch, rows: &[SampleRow]) {
        let context = |span: &Span| batch.positions[span.tokens.end - 1] as usize + 1;
        self.tokens = batch.tokens.len();
        self.spans = batch.spans.len();
        self.longest_span = batch.spans.iter().map(|span| span.tokens.len()).max().unwrap_or(0);
        self.longest_context = batch.spans.iter().map(context).max().unwrap_or(0);
        self.outputs = batch.logits_indices.len();
        self.wanted = self.outputs;
        self.needed_logits = NeededLogits::of(rows);
        self.is_padded = self.longest_span == 1 && self.tokens <= self.max_decode_rows;
        if self.is_padded {
            let padded = bucket(self.tokens).min(self.max_decode_rows);
            (self.tokens, self.spans, self.outputs) = (padded, padded, padded);
            self.longest_context = context_bucket(self.longest_context);
        }
        let is_longer = |span: &&Span| span.tokens.len() > 1;
        self.prefills =
            if self.is_uniform { self.spans } else { batch.spans.iter().filter(is_longer).count() };
        self.buffer.write(runtime, &self.image(batch, rows));
        if let Some((buffer, sections)) = &self.windowed {
            buffer.write(runtime, &self.windowed_image(batch, sections));
        }
        if !batch.pending_tokens.is_empty() && rows.iter().any(|row| row.deferred_row.is_some()) {
            self.void_rows(runtime, batch);
        }
    }

    /// Turns rows without a token into padding. They have none because the expert left their last output to the
    /// amateur.
    fn void_rows(&self, runtime: &R, batch: &Batch) {
        const THREADS: usize = 256;
        let section = |section: Section| runtime.address(&self.buffer.memory) + section.offset as u64;
        let parameters = VoidRowsParams {
            source_outputs: section(self.sections.source_outputs),
            logits_indices: section(self.sections.logits_indices),
            results: runtime.address(&self.results.memory),
            slots: section(self.sections.slots),
            windowed_slots: self.windowed.as_ref().map_or(0, |(buffer, sections)| {
                runtime.address(&buffer.memory) + sections.slots.offset as u64
            }),
            spans: section(self.sections.spans),
            samples: section(self.sections.samples),
            span_count: batch.spans.len() as u32,
            output_count: batch.logits_indices.len() as u32,
        };
        let grid = [batch.logits_indices.len().div_ceil(THREADS) as u32, 1, 1];
        let launch = Launch { kernel: "void_rows", grid, threads: THREADS as u32, shared_bytes: 0 };
        runtime.launch(Stream::Main(Role::Expert), &launch, bytemuck::bytes_of(&parameters));
    }

    /// The key of the step's work for [`GpuRuntime::replay`], if the same work is likely to recur. The work depends
    /// only on the contents of the key: from the lowest bit on 20 bits of rows, 16 of splits of the longest context, 4 of
    /// the variant, and the step's number.
    pub fn replay_key(&self, pass: Pass) -> Option<u64> {
        let splits = (self.longest_context / SPLIT) as u64;
        let NeededLogits { candidates, all } = self.needed_logits;
        let variant = ((pass as u32) << 2) | (u32::from(candidates) << 1) | u32::from(all);
        let shape = (u64::from(variant) << 36) | (splits << 20) | self.tokens as u64;
        self.is_padded.then_some((self.id << 40) | shape)
    }

    /// See [`crate::device::Device::submit`].
    pub fn submit(&mut self, runtime: &R) {
        let bytes = self.wanted * size_of::<ResultWords>();
        self.pending.push_back(runtime.read(Role::Expert, &self.results.memory, bytes));
        // The tokens feed the next step of both models.
        self.results.update_mirror(runtime, bytes);
    }

    /// See [`crate::device::Device::collect`].
    pub fn collect(&mut self, runtime: &R) -> Result<Vec<RowResult>> {
        let Some(pending) = self.pending.pop_front() else { return Ok(Vec::new()) };
        let bytes = runtime.wait(pending)?;
        Ok(bytemuck::allocation::pod_collect_to_vec::<u8, ResultWords>(&bytes)
            .iter()
            .map(ResultWords::result)
            .collect())
    }

    /// The address of a section for the kernels of a role.
    pub fn section(&self, on: &GpuDevice<R>, section: impl FnOnce(&Sections) -> Section) -> u64 {
        self.buffer.address(on.runtime(), on.current_role()) + section(&self.sections).offset as u64
    }

    /// The address of the cache slots in layers of a kind for the kernels of a role.
    pub fn slots(&self, on: &GpuDevice<R>, kind: LayerKind) -> u64 {
        match kind {
            LayerKind::Full => self.section(on, |s| s.slots),
            LayerKind::Windowed => self.windowed_section(on, |s| s.slots),
        }
    }

    /// The address of the block tables of layers of a kind for the kernels of a role.
    pub fn blocks(&self, on: &GpuDevice<R>, kind: LayerKind) -> u64 {
        match kind {
            LayerKind::Full => self.section(on, |s| s.blocks),
            LayerKind::Windowed => self.windowed_section(on, |s| s.blocks),
        }
    }

    /// As [`Step::section`]; 0 if there are no layers with a window.
    fn windowed_section(&self, on: &GpuDevice<R>, section: impl FnOnce(&WindowedSections) -> Section) -> u64 {
        self.windowed.as_ref().map_or(0, |(buffer, sections)| {
            buffer.address(on.runtime(), on.current_role()) + section(sections).offset as u64
        })
    }

    /// The address of the results for the kernels of a role.
    pub fn results(&self, on: &GpuDevice<R>) -> u64 {
        self.results.address(on.runtime(), on.current_role())
    }

    /// The address of the tiles' summaries for the sampling kernels.
    pub fn tiles(&self, on: &GpuDevice<R>) -> u64 {
        on.address(&self.tiles)
    }

    /// See [`crate::device::inspect::Inspect::projections`].
    pub fn projections(&self, on: &GpuDevice<R>) -> Projections {
        let NeededLogits { candidates, all } = self.needed_logits;
        let found = if candidates { self.candidates.projections(on) } else { Projections::default() };
        Projections { full: if all { self.outputs } else { found.full }, ..found }
    }

    /// The address and the number of the special tokens.
    pub fn special(&self, on: &GpuDevice<R>) -> (u64, usize) {
        (on.address(&self.special), self.special_count)
    }

    /// The buffer's bytes for this step.
    fn image(&self, batch: &Batch, rows: &[SampleRow]) -> Vec<u8> {
        let at = &self.sections;
        let mut tokens = batch.tokens.clone();
        tokens.resize(self.tokens, TokenId(0));
        let mut source_outputs = vec![NONE; self.tokens];
        batch.pending_tokens.iter().for_each(|from| source_outputs[from.index as usize] = from.source_output);
        let mut positions = batch.positions.clone();
        positions.resize(self.tokens, 0);
        let slots = self.slots_of(batch, LayerKind::Full);
        let mut spans: Vec<SpanWords> = batch
            .spans
            .iter()
            .map(|span| SpanWords {
                first_token: span.tokens.start as u32,
                tokens: span.tokens.len() as u32,
                context: batch.positions[span.tokens.end - 1] + 1,
                first_block: span.blocks.start as u32,
            })
            .collect();
        spans.resize(self.spans, SpanWords::zeroed());
        let is_prefill = |span: &SpanWords| self.is_uniform || span.tokens > 1;
        let prefills: Vec<u32> =
            (0..).zip(&spans).filter(|(_, span)| is_prefill(span)).map(|(index, _)| index).collect();
        let mut logits_indices = batch.logits_indices.clone();
        logits_indices.resize(self.outputs, 0);
        let mut samples: Vec<SampleWords> = rows.iter().map(SampleWords::new).collect();
        samples.resize(self.outputs, SampleWords { position: NONE, ..SampleWords::zeroed() });

        let mut image = vec![0; at.blocks.offset + size_of_val(batch.blocks.as_slice())];
        let mut put = |section: Section, bytes: &[u8]| {
            debug_assert!(bytes.len() <= section.len, "the step is larger than its capacity");
            image[section.offset..][..bytes.len()].copy_from_slice(bytes);
        };
        put(at.tokens, bytemuck::cast_slice(&tokens));
        put(at.source_outputs, bytemuck::cast_slice(&source_outputs));
        put(at.positions, bytemuck::cast_slice(&positions));
        put(at.slots, bytemuck::cast_slice(&slots));
        put(at.spans, bytemuck::cast_slice(&spans));
        put(at.prefills, bytemuck::cast_slice(&prefills));
        put(at.logits_indices, bytemuck::cast_slice(&logits_indices));
        put(at.samples, bytemuck::cast_slice(&samples));
        put(at.blocks, bytemuck::cast_slice(&batch.blocks));
        image
    }

    /// The bytes of the buffer for layers with a window.
    fn windowed_image(&self, batch: &Batch, at: &WindowedSections) -> Vec<u8> {
        let blocks: &[u8] = bytemuck::cast_slice(&batch.windowed_blocks);
        debug_assert!(blocks.len() <= at.blocks.len, "the step is larger than its capacity");
        let mut image = bytemuck::cast_slice(&self.slots_of(batch, LayerKind::Windowed)).to_vec();
        image.resize(at.blocks.offset, 0);
        image.extend_from_slice(blocks);
        image
    }

    /// `[tokens]`: the cache slots in layers of a kind, padding included.
    fn slots_of(&self, batch: &Batch, kind: LayerKind) -> Vec<u32> {
        let mut slots = vec![NONE; self.tokens];
        for span in &batch.spans {
            let blocks = batch.table(kind, span);
            for token in span.tokens.clone() {
                let position = batch.positions[token] as usize;
                let (block, slot) = (blocks[position / self.block_size], position % self.block_size);
                slots[token] = block.0 * self.block_size as u32 + slot as u32;
            }
        }
        slots
    }
}
