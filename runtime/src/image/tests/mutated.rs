//! Right answers with something broken in them at random: whatever it is, a pull ends in time, with the right image or
//! an error. `MAINSTAY_FUZZ_SECONDS` makes it run for longer; a failure prints the seed that repeats it.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};

use super::fake::{Reply, Request, Server, Step, TestImage, noise};
use super::{quick, reference, rig, root};

/// Numbers from a seed.
struct Dice(Vec<u8>, usize);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 64), 0)
    }

    fn below(&mut self, limit: usize) -> usize {
        let mut number = 0_usize;
        for _ in 0..4 {
            number = number << 8 | usize::from(self.0.get(self.1 % self.0.len()).copied().unwrap_or_default());
            self.1 += 1;
        }
        number % limit.max(1)
    }
}

/// One change somewhere in the bytes, more often in the head than in the body.
fn broken(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let at = if dice.below(3) < 2 { dice.below(head) } else { dice.below(bytes.len()) };
    let end = (at + dice.below(40)).min(bytes.len());
    match dice.below(7) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << dice.below(8)),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy: Vec<u8> = bytes.get(at..end).unwrap_or_default().to_vec();
            bytes.splice(at..at, copy);
        }
        4 => drop(bytes.splice(at..at, noise(dice.below(1000) as u64, 20))),
        5 => bytes.iter_mut().skip(at).filter(|byte| byte.is_ascii_digit()).take(1).for_each(|byte| *byte = b'9'),
        _ => drop(bytes.splice(at..at, *b"\r\n")),
    }
    bytes
}

fn mutate(reply: Reply, request: &Request, dice: &mut Dice) -> Reply {
    let steps = reply.steps(request).into_iter().map(|step| match step {
        Step::Send(bytes) => Step::Send(broken(bytes, dice)),
        other => other,
    });
    Reply::Steps(steps.chain([Step::Close]).collect())
}

/// Whether the image came all the same; the error is what is wrong with how a pull of this seed went.
async fn check(seed: u64) -> Result<bool, String> {
    let image = TestImage::usual();
    let digest = image.digest();
    // The same requests are broken each time they come, so that trying again is no way out.
    let server = Server::start(move |request| {
        let kind = request.target.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let reply = image.answer(request);
        if kind % 2 == 0 { mutate(reply, request, &mut Dice::new(kind)) } else { reply }
    });
    let rig = rig(quick());
    let start = Instant::now();
    let result = rig.refused(&reference(&server, &format!("app@{digest}")), &Vec::new()).await;
    let fine = result == format!("pulled {digest}") || result.starts_with("cannot pull image");
    let late = start.elapsed() > Duration::from_secs(25);
    let unfit = result.contains(|c: char| c.is_control());
    match fine && !late && !unfit {
        true => Ok(result.starts_with("pulled")),
        false => Err(format!("seed {seed} after {:?}: {result}", start.elapsed())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_answers_never_make_a_wrong_image() {
    if !root() {
        return;
    }
    let seconds = std::env::var("MAINSTAY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (first, count) = match seconds {
        Some(_) => (std::process::id().into(), u64::MAX),
        None => (0, 60),
    };
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seeds = (first..).take(count.try_into().unwrap_or(usize::MAX));
    let running = seeds.take_while(|_| deadline.is_none_or(|deadline| Instant::now() < deadline));
    let (mut pulled, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    let mut results = stream::iter(running.map(check)).buffer_unordered(6);
    while let Some(result) = results.next().await {
        match result {
            Ok(true) => pulled += 1,
            Ok(false) => refused += 1,
            Err(error) => wrong.push(error),
        }
    }
    eprintln!("{refused} broken registries refused, {pulled} pulled from all the same");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 0 && pulled > 0, "both happen");
}
