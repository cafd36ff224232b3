//! Progress of a pull on stderr: a bar for each layer on a terminal, nothing elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::api::PullProgress;
use spec::digest::Digest;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bars that are shown until the pull has ended.
pub(super) struct Shown {
    task: tokio::task::JoinHandle<()>,
    bars: MultiProgress,
}

/// Starts to show what is sent.
pub(super) fn start() -> (UnboundedSender<PullProgress>, Shown) {
    let (sender, receiver) = unbounded_channel();
    let visible = std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bars = MultiProgress::with_draw_target(target);
    let task = tokio::spawn(show(receiver, bars.clone()));
    (sender, Shown { task, bars })
}

impl Shown {
    /// Takes the bars away: what comes next is the answer.
    pub(super) fn finish(self) {
        self.task.abort();
        // A terminal that is gone shows nothing anyway.
        let _ = self.bars.clear();
    }
}

async fn show(mut receiver: UnboundedReceiver<PullProgress>, bars: MultiProgress) {
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
    };
    let fetching = style("{prefix} {bar:30} {bytes:>10}/{total_bytes:<10} {binary_bytes_per_sec:>12} {msg}");
    let ended = style("{prefix} {msg}");
    let mut layers: HashMap<Digest, ProgressBar> = HashMap::new();
    while let Some(progress) = receiver.recv().await {
        match progress {
            PullProgress::Layer { digest, size, present } => {
                let bar = layers.entry(digest).or_insert_with(|| bars.add(ProgressBar::new(size)));
                bar.set_prefix(digest.short());
                if present {
                    bar.set_style(ended.clone());
                    bar.finish_with_message("is here already");
                } else {
                    bar.set_style(fetching.clone());
                }
            }
            PullProgress::Bytes { digest, received } => {
                if let Some(bar) = layers.get(&digest) {
                    bar.set_position(received);
                    if bar.length() == Some(received) {
                        bar.set_message("unpacking");
                    }
                }
            }
            PullProgress::Done { digest } => {
                if let Some(bar) = layers.get(&digest) {
                    bar.set_style(ended.clone());
                    bar.finish_with_message("verified and unpacked");
                }
            }
        }
    }
}
