//! One encoder layer on the CPU, forward and backward.
//!
//! Texts stand one after the other in [tokens, hidden] matrices, without padding; only attention
//! knows where one ends. A gradient is named after what it is the gradient of: `d_x`.

use std::sync::OnceLock;

use super::{Array, Dropout};
use crate::kernels::{
    Buffer, Curve, Heads, Left, Normed, Right, Rows, Start, activate, activate_with_slope, add,
    attend, attend_backward, multiply, norm, norm_backward, product,
};

/// A frozen linear layer.
#[derive(Debug)]
pub(super) struct Dense {
    /// [inputs, outputs]
    weight: Right,
    /// [outputs, inputs], made when a gradient is first asked for.
    turned: OnceLock<Right>,
    bias: Vec<f32>,
}

impl Dense {
    /// From a weight [outputs, inputs], as files hold it.
    pub(super) fn new(weight: &[f32], bias: &[f32]) -> Self {
        Self {
            weight: Right::transposed(Rows::new(weight, weight.len() / bias.len())),
            turned: OnceLock::new(),
            bias: bias.to_vec(),
        }
    }

    fn turned(&self) -> &Right {
        self.turned.get_or_init(|| self.weight.to_transposed())
    }

    /// `x weight + bias` for [rows, inputs].
    pub(super) fn forward(&self, x: &Left, rows: usize) -> Buffer {
        let mut out = Buffer::stale(rows * self.bias.len());
        let start = Start::Bias(&self.bias);
        product(x, &self.weight, None, start, &mut out, self.bias.len());
        out
    }

    /// `d_y weightᵀ`.
    pub(super) fn backward(&self, d_y: &Left, rows: usize) -> Buffer {
        let inputs = self.weight.depth();
        let mut d_x = Buffer::stale(rows * inputs);
        product(d_y, self.turned(), None, Start::Zero, &mut d_x, inputs);
        d_x
    }
}

/// Gain and shift of a layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) gain: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// A LoRA pair as factors. The scale is in B.
#[derive(Debug, Clone)]
pub(super) struct PackedLora {
    /// [inputs, rank]
    a: Right,
    /// [rank, outputs]
    b: Right,
    /// [rank, inputs]
    a_turned: Right,
    /// [outputs, rank]
    b_turned: Right,
    scale: f32,
}

impl PackedLora {
    /// From A [inputs, rank] and B [rank, outputs].
    pub(super) fn new(a: &[f32], b: &[f32], rank: usize, scale: f32) -> Self {
        let a = Right::new(Rows::new(a, rank));
        let b: Vec<f32> = b.iter().map(|value| value * scale).collect();
        let b = Right::new(Rows::new(&b, b.len() / rank));
        Self {
            a_turned: a.to_transposed(),
            b_turned: b.to_transposed(),
            a,
            b,
            scale,
        }
    }
}

/// The gradients of a LoRA pair: of A [inputs, rank] and of B [rank, outputs].
pub(super) type LoraGradient = (Array, Array);

/// Which tokens of each text the layer's output is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them.
    All,
    /// The first alone: all that a classifier looks at. The other tokens are only keys and values
    /// then.
    First,
}

/// The frozen part of a layer.
#[derive(Debug)]
pub(super) struct Block {
    /// Query, key, value, attention output, feed-forward in, feed-forward out.
    pub(super) linears: [Dense; 6],
    /// After attention, after feed-forward.
    pub(super) norms: [Norm; 2],
}

/// A layer with all that its passes need to know.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) block: &'a Block,
    /// Empty, or one entry per linear layer.
    pub(super) loras: &'a [Option<PackedLora>],
    pub(super) dropout: Option<Dropout>,
    /// Number of the layer's first linear layer in the model.
    pub(super) first: usize,
    pub(super) heads: Heads,
    pub(super) curve: Curve,
    pub(super) epsilon: f32,
    pub(super) wanted: Wanted,
    /// Where each text begins, and where the last one ends.
    pub(super) bounds: &'a [usize],
}

/// What the backward pass needs of a forward pass.
pub(super) struct Tape {
    x: Buffer,
    queries: Buffer,
    keys: Buffer,
    values: Buffer,
    mixed: Buffer,
    norms: [Normed; 2],
    slopes: Buffer,
    /// The feed-forward part's inner values; empty unless its second linear layer is adapted.
    wide: Buffer,
    /// `x A` of each adapted linear layer.
    low: [Buffer; 6],
}

/// What the backward pass through one linear layer goes by.
struct Step<'a> {
    /// Which of the six.
    part: usize,
    /// What went in.
    x: &'a [f32],
    /// `x A`, if it is adapted.
    low: &'a [f32],
    /// The gradient of what came out.
    d_y: &'a [f32],
}

impl Tape {
    fn at<'a>(&'a self, part: usize, x: &'a [f32], d_y: &'a [f32]) -> Step<'a> {
        Step {
            part,
            x,
            low: &self.low[part],
            d_y,
        }
    }
}

impl<'a> Layer<'a> {
    fn hidden(&self) -> usize {
        self.heads.count * self.heads.size
    }

    fn lora(&self, part: usize) -> Option<&'a PackedLora> {
        self.loras.get(part)?.as_ref()
    }

    /// The rows whose output is wanted.
    fn wanted_rows(&self, x: &[f32]) -> Buffer {
        let hidden = self.hidden();
        match self.wanted {
            Wanted::All => Buffer::copy(x),
            Wanted::First => {
                let mut first = Buffer::stale((self.bounds.len() - 1) * hidden);
                for (row, &at) in first.chunks_exact_mut(hidden).zip(self.bounds) {
                    row.copy_from_slice(&x[at * hidden..(at + 1) * hidden]);
                }
                first
            }
        }
    }

    /// The reverse of [`Self::wanted_rows`]: zeros for the other tokens.
    fn spread(&self, rows: Buffer) -> Buffer {
        let hidden = self.hidden();
        match self.wanted {
            Wanted::All => rows,
            Wanted::First => {
                let mut all = Buffer::zeros(self.bounds[self.bounds.len() - 1] * hidden);
                for (&at, row) in self.bounds.iter().zip(rows.chunks_exact(hidden)) {
                    all[at * hidden..(at + 1) * hidden].copy_from_slice(row);
                }
                all
            }
        }
    }

    /// For each text the ranges of its wanted rows and of all its rows, in numbers.
    fn spans(&self) -> impl Iterator<Item = [std::ops::Range<usize>; 2]> + use<'a> {
        let (hidden, wanted) = (self.hidden(), self.wanted);
        self.bounds.windows(2).enumerate().map(move |(text, ends)| {
            let all = ends[0] * hidden..ends[1] * hidden;
            match wanted {
                Wanted::All => [all.clone(), all],
                Wanted::First => [text * hidden..(text + 1) * hidden, all],
            }
        })
    }

    /// The layer's output for the wanted tokens; with a tape when there will be a backward pass.
    pub(super) fn forward(&self, x: Buffer, keep: bool) -> (Buffer, Option<Tape>) {
        let hidden = self.hidden();
        let mut low: [Buffer; 6] = Default::default();
        let all = Left::new(Rows::new(&x, hidden));
        let asking = self.wanted_rows(&x);
        let asking_left = match self.wanted {
            Wanted::All => None,
            Wanted::First => Some(Left::new(Rows::new(&asking, hidden))),
        };
        let asked = asking_left.as_ref().unwrap_or(&all);
        let queries = self.linear(0, &asking, asked, &mut low);
        let keys = self.linear(1, &x, &all, &mut low);
        let values = self.linear(2, &x, &all, &mut low);
        let mut mixed = Buffer::stale(queries.len());
        for [wanted, all] in self.spans() {
            let (keys, values) = (&keys[all.clone()], &values[all]);
            let out = &mut mixed[wanted.clone()];
            attend(self.heads, &queries[wanted], keys, values, out);
        }
        let mut middle = self.linear(3, &mixed, &Left::new(Rows::new(&mixed, hidden)), &mut low);
        add(&mut middle, &asking);
        let after = &self.block.norms[0];
        let first_norm = norm(&mut middle, &after.gain, &after.shift, self.epsilon);

        let left = Left::new(Rows::new(&middle, hidden));
        let mut wide = self.linear(4, &middle, &left, &mut low);
        let slopes = if keep {
            activate_with_slope(self.curve, &mut wide)
        } else {
            activate(self.curve, &mut wide);
            Buffer::default()
        };
        let width = wide.len() / (middle.len() / hidden).max(1);
        let left = Left::new(Rows::new(&wide, width.max(1)));
        let mut out = self.linear(5, &wide, &left, &mut low);
        add(&mut out, &middle);
        let after = &self.block.norms[1];
        let second_norm = norm(&mut out, &after.gain, &after.shift, self.epsilon);
        let tape = keep.then(|| Tape {
            x,
            queries,
            keys,
            values,
            mixed,
            norms: [first_norm, second_norm],
            slopes,
            wide: if self.lora(5).is_some() {
                wide
            } else {
                Buffer::default()
            },
            low,
        });
        (out, tape)
    }

    fn linear(&self, part: usize, x: &[f32], left: &Left, low: &mut [Buffer; 6]) -> Buffer {
        let dense = &self.block.linears[part];
        let rows = x.len() / dense.weight.depth();
        let Some(lora) = self.lora(part) else {
            return dense.forward(left, rows);
        };
        let rank = lora.a.columns();
        let mut small = Buffer::stale(rows * rank);
        match self.dropout {
            None => product(left, &lora.a, None, Start::Zero, &mut small, rank),
            Some(dropout) => {
                let dropped = self.dropped(part, x, dropout);
                let left = Left::new(Rows::new(&dropped, dense.weight.depth()));
                product(&left, &lora.a, None, Start::Zero, &mut small, rank);
            }
        }
        let mut out = Buffer::stale(rows * dense.bias.len());
        let tail = Left::new(Rows::new(&small, rank));
        product(
            left,
            &dense.weight,
            Some((&tail, &lora.b)),
            Start::Bias(&dense.bias),
            &mut out,
            dense.bias.len(),
        );
        low[part] = small;
        out
    }

    fn dropped(&self, part: usize, x: &[f32], dropout: Dropout) -> Buffer {
        let mut dropped = Buffer::copy(x);
        multiply(&mut dropped, &dropout.mask(self.first + part, x.len()));
        dropped
    }

    /// From the gradient of the output to those of the adapters, and to that of the input where
    /// `below` says that somebody needs it.
    pub(super) fn backward(
        &self,
        tape: &Tape,
        mut d_out: Buffer,
        below: bool,
        gradients: &mut [Option<LoraGradient>],
    ) -> Option<Buffer> {
        norm_backward(&mut d_out, &tape.norms[1], &self.block.norms[1].gain);
        let d_middle = self.feed_forward_backward(tape, d_out, gradients);
        self.attention_backward(tape, d_middle, below, gradients)
    }

    /// From the gradient of what comes out of the feed-forward part to that of what goes in.
    fn feed_forward_backward(
        &self,
        tape: &Tape,
        d_out: Buffer,
        gradients: &mut [Option<LoraGradient>],
    ) -> Buffer {
        let mut d_wide = Buffer::stale(tape.slopes.len());
        let into = Some((&mut d_wide[..], Start::Zero));
        let second = tape.at(5, &tape.wide, &d_out);
        self.linear_backward(&second, into, &mut gradients[5]);
        multiply(&mut d_wide, &tape.slopes);
        let middle = if self.lora(4).is_some() {
            self.middle(tape)
        } else {
            Buffer::default()
        };
        let mut d_middle = d_out;
        let into = Some((&mut d_middle[..], Start::Output));
        let first = tape.at(4, &middle, &d_wide);
        self.linear_backward(&first, into, &mut gradients[4]);
        d_middle
    }

    /// From the gradient of what comes out of attention and its norm to that of the layer's input.
    fn attention_backward(
        &self,
        tape: &Tape,
        mut d_middle: Buffer,
        below: bool,
        gradients: &mut [Option<LoraGradient>],
    ) -> Option<Buffer> {
        norm_backward(&mut d_middle, &tape.norms[0], &self.block.norms[0].gain);
        let mut d_mixed = Buffer::stale(tape.mixed.len());
        let into = Some((&mut d_mixed[..], Start::Zero));
        let output = tape.at(3, &tape.mixed, &d_middle);
        self.linear_backward(&output, into, &mut gradients[3]);
        let [d_queries, d_keys, d_values] = self.mixture_backward(tape, &d_mixed);
        let asking = match self.wanted {
            Wanted::All => None,
            Wanted::First => Some(self.wanted_rows(&tape.x)),
        };
        let asking = asking.as_deref().unwrap_or(&tape.x);
        let mut d_asking = d_middle;
        let into = below.then_some((&mut d_asking[..], Start::Output));
        let query = tape.at(0, asking, &d_queries);
        self.linear_backward(&query, into, &mut gradients[0]);
        let mut d_x = if below {
            self.spread(d_asking)
        } else {
            Buffer::default()
        };
        for (part, d_y) in [(1, &d_keys), (2, &d_values)] {
            let into = below.then_some((&mut d_x[..], Start::Output));
            let step = tape.at(part, &tape.x, d_y);
            self.linear_backward(&step, into, &mut gradients[part]);
        }
        below.then_some(d_x)
    }

    /// From the gradient of the mixture to those of queries, keys and values.
    fn mixture_backward(&self, tape: &Tape, d_mixed: &[f32]) -> [Buffer; 3] {
        let mut d_queries = Buffer::stale(tape.queries.len());
        let mut d_keys = Buffer::stale(tape.keys.len());
        let mut d_values = Buffer::stale(tape.values.len());
        for [wanted, all] in self.spans() {
            attend_backward(
                self.heads,
                [
                    &tape.queries[wanted.clone()],
                    &tape.keys[all.clone()],
                    &tape.values[all.clone()],
                ],
                &d_mixed[wanted.clone()],
                [
                    &mut d_queries[wanted],
                    &mut d_keys[all.clone()],
                    &mut d_values[all],
                ],
            );
        }
        [d_queries, d_keys, d_values]
    }

    /// What went into the feed-forward part, from what its normalisation kept.
    fn middle(&self, tape: &Tape) -> Buffer {
        let Norm { gain, shift } = &self.block.norms[0];
        let mut middle = Buffer::copy(&tape.norms[0].plain);
        for row in middle.chunks_exact_mut(gain.len()) {
            for (x, (gain, shift)) in row.iter_mut().zip(gain.iter().zip(shift)) {
                *x = x.mul_add(*gain, *shift);
            }
        }
        middle
    }

    /// From the gradient of what comes out of a linear layer to those of its adapter, and to that of
    /// what goes in where `into` says that somebody needs it.
    fn linear_backward(
        &self,
        step: &Step<'_>,
        into: Option<(&mut [f32], Start<'_>)>,
        gradient: &mut Option<LoraGradient>,
    ) {
        let dense = &self.block.linears[step.part];
        let (inputs, outputs) = (dense.weight.depth(), dense.bias.len());
        let left = Left::new(Rows::new(step.d_y, outputs));
        let Some(lora) = self.lora(step.part) else {
            if let Some((d_x, start)) = into {
                product(&left, dense.turned(), None, start, d_x, inputs);
            }
            return;
        };
        let (rows, rank) = (step.d_y.len() / outputs, lora.a.columns());
        let mut d_low = Buffer::stale(rows * rank);
        product(&left, &lora.b_turned, None, Start::Zero, &mut d_low, rank);
        *gradient = Some(self.lora_gradient(step, lora, &d_low));

        let Some((d_x, start)) = into else { return };
        let d_low = Left::new(Rows::new(&d_low, rank));
        let turned = &lora.a_turned;
        match self.dropout {
            None => {
                let tail = Some((&d_low, turned));
                product(&left, dense.turned(), tail, start, d_x, inputs);
            }
            Some(dropout) => {
                product(&left, dense.turned(), None, start, d_x, inputs);
                let mut through = Buffer::stale(rows * inputs);
                product(&d_low, turned, None, Start::Zero, &mut through, inputs);
                let mask = dropout.mask(self.first + step.part, rows * inputs);
                multiply(&mut through, &mask);
                add(d_x, &through);
            }
        }
    }

    /// The gradients of a LoRA pair, from those of what comes out of the layer and out of A.
    fn lora_gradient(&self, step: &Step<'_>, lora: &PackedLora, d_low: &[f32]) -> LoraGradient {
        let dense = &self.block.linears[step.part];
        let (inputs, outputs) = (dense.weight.depth(), dense.bias.len());
        let rank = lora.a.columns();
        let mut d_b = Array::zeros(&[rank, outputs]);
        let low = Left::transposed(Rows::new(step.low, rank));
        let d_y = Right::new(Rows::new(step.d_y, outputs));
        product(&low, &d_y, None, Start::Zero, &mut d_b.data, outputs);
        d_b.data.iter_mut().for_each(|value| *value *= lora.scale);
        let dropout = self.dropout;
        let dropped = dropout.map(|dropout| self.dropped(step.part, step.x, dropout));
        let seen = dropped.as_deref().unwrap_or(step.x);
        let mut d_a = Array::zeros(&[inputs, rank]);
        let seen = Left::transposed(Rows::new(seen, inputs));
        let d_low = Right::new(Rows::new(d_low, rank));
        product(&seen, &d_low, None, Start::Zero, &mut d_a.data, rank);
        (d_a, d_b)
    }
}
