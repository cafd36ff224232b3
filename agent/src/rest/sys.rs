//! Unmaps pages of the running program. The only place here with `unsafe` in it.

use std::io;

/// Unmaps the pages of the program that are as in its file; an access brings them back.
pub(super) fn forget_program() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    for range in super::unchanged(&smaps, &program) {
        // SAFETY: a private mapping of the running executable, which nobody can write to while it runs (ETXTBSY), and
        // which holds no page that differs from it: what is read next is what was there. It is not writable, and nothing
        // in this program changes the protection of its own code and constants, so that stays so.
        let result = unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
