//! How containers of simulated images behave.

use spec::image_ref::ImageRef;
use spec::time::Millis;

/// What the image's name says; times are in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Run,
    Exit(i32, u64),
    Stubborn,
    Broken,
    Slow(u64),
    Hang(u64),
}

pub(super) fn behaviour(image: &ImageRef) -> Behaviour {
    let name = image.repository().rsplit('/').next().unwrap_or_default();
    if let Some((code, millis)) = name.strip_prefix("exit-").and_then(|rest| rest.split_once('-')) {
        return Behaviour::Exit(code.parse().unwrap_or(1), millis.parse().unwrap_or(0));
    }
    let millis = |prefix| name.strip_prefix(prefix).and_then(|millis: &str| millis.parse().ok());
    match (name, millis("slow-"), millis("hang-")) {
        ("stubborn", ..) => Behaviour::Stubborn,
        ("broken", ..) => Behaviour::Broken,
        (_, Some(millis), _) => Behaviour::Slow(millis),
        (_, _, Some(millis)) => Behaviour::Hang(millis),
        _ => Behaviour::Run,
    }
}

/// Whether a container of this image that has run for so long is well.
#[must_use]
pub fn is_well(image: &ImageRef, runs_for: Millis) -> bool {
    match behaviour(image) {
        Behaviour::Slow(millis) => runs_for.0 >= millis,
        Behaviour::Hang(millis) => runs_for.0 < millis,
        Behaviour::Run | Behaviour::Exit(..) | Behaviour::Stubborn | Behaviour::Broken => true,
    }
}
