//! The quick-start web server: the only program of the image `mainstay.local/web:1`.
//!
//! Serves a page with `$GREETING` and its host name on port `$PORT` (8080), and `/healthz`. Many connections, one
//! thread, no allocation, no libc: it is compiled by the build script of the `runtime` crate with nothing but the
//! compiler. Ends with code 0 on SIGTERM and SIGINT at once, also as PID 1.
#![no_std]
#![no_main]

/// Connections at one time; beyond that the one served longest ago makes room.
const CONNECTIONS: usize = 512;
/// The longest request head.
const HEAD: usize = 1024;
const DEFAULT_PORT: u16 = 8080;
const DEFAULT_GREETING: &[u8] = b"Hello from mainstay";

#[derive(Clone, Copy)]
struct Connection {
    fd: i32,
    used: usize,
    head: [u8; HEAD],
}

/// What to do with a connection after its bytes were looked at.
#[derive(PartialEq)]
enum After {
    Keep,
    Close,
}

/// A text being built in a fixed buffer; what does not fit is left out.
struct Text {
    bytes: [u8; 4096],
    used: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 4096], used: 0 }
    }

    fn add(&mut self, text: &[u8]) -> &mut Self {
        for byte in text {
            if let Some(slot) = self.bytes.get_mut(self.used) {
                *slot = *byte;
                self.used += 1;
            }
        }
        self
    }

    fn add_number(&mut self, number: usize) -> &mut Self {
        if number >= 10 {
            self.add_number(number / 10);
        }
        self.add(&[b'0' + (number % 10) as u8])
    }

    /// Adds text that shows as itself in HTML.
    fn add_escaped(&mut self, text: &[u8]) -> &mut Self {
        for byte in text.iter().take(512) {
            match byte {
                b'<' => self.add(b"&lt;"),
                b'>' => self.add(b"&gt;"),
                b'&' => self.add(b"&amp;"),
                b'"' => self.add(b"&quot;"),
                other => self.add(&[*other]),
            };
        }
        self
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}

struct Page {
    body: Text,
}

fn page(greeting: &[u8], host: &[u8]) -> Page {
    let mut body = Text::new();
    body.add(b"<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>")
        .add_escaped(greeting)
        .add(b"</title>\n<style>body{font:18px/1.5 system-ui,sans-serif;max-width:36em;margin:12vh auto;padding:0 1em}")
        .add(b"code{background:#eee;padding:.1em .3em}</style></head>\n<body>\n<h1>")
        .add_escaped(greeting)
        .add(b"</h1>\n<p>Served from container <code>")
        .add_escaped(host)
        .add(b"</code>.</p>\n<p>Change <code>GREETING</code> in the manifest, save it, and reload this page.</p>\n")
        .add(b"</body>\n</html>\n");
    Page { body }
}

fn parse_port(text: &[u8]) -> Option<u16> {
    let mut port = 0u32;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        port = port * 10 + u32::from(byte - b'0');
        if port > 65535 {
            return None;
        }
    }
    if port == 0 { None } else { Some(port as u16) }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Whether the client wants the connection closed: HTTP/1.0, or the header.
fn wants_close(head: &[u8]) -> bool {
    let mut lines = head.split(|b| *b == b'\n');
    let old = lines.next().is_none_or(|line| find(line, b"HTTP/1.1").is_none());
    let named = lines.any(|line| {
        let (name, value) = line.split_at(line.len().min(11));
        name.eq_ignore_ascii_case(b"connection:") && find(&value.to_ascii_lower(), b"close").is_some()
    });
    old || named
}

/// The first bytes of a header value in lower case; enough to find one word.
trait Lower {
    fn to_ascii_lower(&self) -> [u8; 32];
}

impl Lower for [u8] {
    fn to_ascii_lower(&self) -> [u8; 32] {
        let mut out = [0; 32];
        for (slot, byte) in out.iter_mut().zip(self) {
            *slot = byte.to_ascii_lowercase();
        }
        out
    }
}

/// Answers one request head.
fn answer(fd: i32, head: &[u8], page: &Page) -> After {
    let line = head.split(|b| *b == b'\r').next().unwrap_or(&[]);
    let mut words = line.split(|b| *b == b' ');
    let method = words.next().unwrap_or(&[]);
    let target = words.next().unwrap_or(&[]);
    let path = target.split(|b| *b == b'?').next().unwrap_or(&[]);
    let known = matches!(method, b"GET" | b"HEAD");
    let (status, kind, body): (&[u8], &[u8], &[u8]) = match (known, path) {
        (false, _) => (b"405 Method Not Allowed", b"text/plain", b"only GET and HEAD\n"),
        (true, b"/" | b"/index.html") => (b"200 OK", b"text/html; charset=utf-8", page.body.get()),
        (true, b"/healthz") => (b"200 OK", b"text/plain", b"ok\n"),
        (true, _) => (b"404 Not Found", b"text/plain", b"not found\n"),
    };
    // What follows an unknown method may be a body, which is not read: the connection ends with it.
    let close = !known || wants_close(head);
    let mut out = Text::new();
    out.add(b"HTTP/1.1 ").add(status).add(b"\r\nContent-Type: ").add(kind).add(b"\r\nContent-Length: ");
    out.add_number(body.len()).add(b"\r\nCache-Control: no-store\r\nConnection: ");
    out.add(if close { b"close" } else { b"keep-alive" }).add(b"\r\n\r\n");
    if method != b"HEAD" {
        out.add(body);
    }
    let mut log = Text::new();
    log.add(method.get(..method.len().min(16)).unwrap_or(&[])).add(b" ");
    for byte in path.iter().take(200) {
        log.add(&[if byte.is_ascii_graphic() { *byte } else { b'?' }]);
    }
    log.add(b" ").add(status.get(..3).unwrap_or(&[])).add(b"\n");
    sys::write(1, log.get());
    // An answer is far smaller than a socket's buffer: one that does not fit is for a client that reads nothing.
    let whole = sys::write(fd, out.get()) == out.get().len() as isize;
    if close || !whole { After::Close } else { After::Keep }
}

/// Reads what has come and answers every request head in it.
fn serve(connection: &mut Connection, page: &Page) -> After {
    let Some(free) = connection.head.get_mut(connection.used..) else { return After::Close };
    let count = sys::read(connection.fd, free);
    if count == sys::AGAIN || count == sys::INTERRUPTED {
        return After::Keep;
    }
    if count <= 0 {
        return After::Close;
    }
    connection.used += count as usize;
    loop {
        let head = connection.head.get(..connection.used).unwrap_or(&[]);
        let Some(end) = find(head, b"\r\n\r\n") else {
            return if connection.used == HEAD { After::Close } else { After::Keep };
        };
        if answer(connection.fd, head.get(..end).unwrap_or(&[]), page) == After::Close {
            return After::Close;
        }
        connection.head.copy_within(end + 4..connection.used, 0);
        connection.used -= end + 4;
    }
}

fn fail(what: &[u8]) -> ! {
    let mut text = Text::new();
    text.add(b"web: cannot ").add(what).add(b"\n");
    sys::write(2, text.get());
    sys::exit(1)
}

/// Everything, given the environment as the kernel laid it out.
fn run(environment: sys::Environment) -> ! {
    let port = match environment.get(b"PORT") {
        Some(text) => parse_port(text).unwrap_or_else(|| fail(b"use $PORT: it is no port")),
        None => DEFAULT_PORT,
    };
    let mut name = sys::HostName::new();
    let page = page(environment.get(b"GREETING").unwrap_or(DEFAULT_GREETING), name.read());
    let Some(signals) = sys::signals() else { fail(b"receive signals") };
    let Some(listener) = sys::listen(port) else { fail(b"listen: is the port in use?") };
    let Some(poll) = sys::Poll::new() else { fail(b"poll") };
    if !poll.add(signals, u64::MAX) || !poll.add(listener, u64::MAX - 1) {
        fail(b"poll");
    }
    let mut text = Text::new();
    text.add(b"listening on port ").add_number(usize::from(port)).add(b"\n");
    sys::write(1, text.get());
    let mut connections = [Connection { fd: -1, used: 0, head: [0; HEAD] }; CONNECTIONS];
    let mut next = 0;
    loop {
        let Some(token) = poll.wait() else { continue };
        if token == u64::MAX {
            sys::exit(0);
        }
        if token == u64::MAX - 1 {
            let fd = sys::accept(listener);
            if fd < 0 {
                continue;
            }
            let free = connections.iter().position(|c| c.fd < 0).unwrap_or(next);
            next = (free + 1) % CONNECTIONS;
            if let Some(slot) = connections.get_mut(free) {
                if slot.fd >= 0 {
                    sys::close(slot.fd);
                }
                (slot.fd, slot.used) = (fd, 0);
                if !poll.add(fd, free as u64) {
                    sys::close(fd);
                    slot.fd = -1;
                }
            }
            continue;
        }
        if let Some(connection) = connections.get_mut(token as usize)
            && connection.fd >= 0
            && serve(connection, &page) == After::Close
        {
            sys::close(connection.fd);
            connection.fd = -1;
        }
    }
}

/// System calls, memory functions and the entry point: all that is unsafe.
mod sys {
    use core::arch::{asm, global_asm};

    #[cfg(target_arch = "x86_64")]
    mod number {
        pub(super) const READ: usize = 0;
        pub(super) const WRITE: usize = 1;
        pub(super) const CLOSE: usize = 3;
        pub(super) const SIGPROCMASK: usize = 14;
        pub(super) const SOCKET: usize = 41;
        pub(super) const BIND: usize = 49;
        pub(super) const LISTEN: usize = 50;
        pub(super) const SETSOCKOPT: usize = 54;
        pub(super) const UNAME: usize = 63;
        pub(super) const EXIT_GROUP: usize = 231;
        pub(super) const EPOLL_CTL: usize = 233;
        pub(super) const EPOLL_PWAIT: usize = 281;
        pub(super) const ACCEPT4: usize = 288;
        pub(super) const SIGNALFD4: usize = 289;
        pub(super) const EPOLL_CREATE1: usize = 291;
    }

    #[cfg(target_arch = "aarch64")]
    mod number {
        pub(super) const EPOLL_CREATE1: usize = 20;
        pub(super) const EPOLL_CTL: usize = 21;
        pub(super) const EPOLL_PWAIT: usize = 22;
        pub(super) const CLOSE: usize = 57;
        pub(super) const READ: usize = 63;
        pub(super) const WRITE: usize = 64;
        pub(super) const SIGNALFD4: usize = 74;
        pub(super) const EXIT_GROUP: usize = 94;
        pub(super) const SIGPROCMASK: usize = 135;
        pub(super) const UNAME: usize = 160;
        pub(super) const SOCKET: usize = 198;
        pub(super) const BIND: usize = 200;
        pub(super) const LISTEN: usize = 201;
        pub(super) const SETSOCKOPT: usize = 208;
        pub(super) const ACCEPT4: usize = 242;
    }

    pub(crate) const AGAIN: isize = -11;
    pub(crate) const INTERRUPTED: isize = -4;
    const SIGNAL_INT: u64 = 1 << 1;
    const SIGNAL_PIPE: u64 = 1 << 12;
    const SIGNAL_TERM: u64 = 1 << 14;
    const NONBLOCK_CLOEXEC: usize = 0o4000 | 0o2_000_000;

    #[cfg(target_arch = "x86_64")]
    global_asm!(
        ".globl _start",
        "_start:",
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {entry}",
        "ud2",
        entry = sym entry,
    );

    #[cfg(target_arch = "aarch64")]
    global_asm!(
        ".globl _start",
        "_start:",
        "mov x29, #0",
        "mov x30, #0",
        "mov x0, sp",
        "bl {entry}",
        "brk #1",
        entry = sym entry,
    );

    extern "C" fn entry(stack: *const usize) -> ! {
        // SAFETY: the kernel puts argc there, then argc pointers and a null, then the environment and a null
        // (System V ABI, "Process Initialization").
        let first = unsafe { stack.add(1 + *stack + 1) }.cast::<*const u8>();
        super::run(Environment { first })
    }

    fn call(number: usize, arguments: [usize; 6]) -> isize {
        let [a, b, c, d, e, f] = arguments;
        let result: isize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the wrappers below pass pointers that are valid for the call; the kernel keeps all registers but
        // rax, rcx and r11.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
                in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the wrappers below pass pointers that are valid for the call; the kernel keeps all registers but x0.
        unsafe {
            asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
                in("x4") e, in("x5") f, options(nostack));
        }
        result
    }

    /// The environment of the process, which lasts as long as it does.
    #[derive(Clone, Copy)]
    pub(crate) struct Environment {
        first: *const *const u8,
    }

    impl Environment {
        pub(crate) fn get(self, name: &[u8]) -> Option<&'static [u8]> {
            let mut at = self.first;
            loop {
                // SAFETY: `at` has not passed the null pointer that ends the list.
                let text = unsafe { *at };
                if text.is_null() {
                    return None;
                }
                let mut length = 0;
                // SAFETY: each text ends with a zero byte. Volatile, or the compiler would call C's strlen.
                while unsafe { text.add(length).read_volatile() } != 0 {
                    length += 1;
                }
                // SAFETY: `length` bytes were just read, and nobody writes to them.
                let text = unsafe { core::slice::from_raw_parts(text, length) };
                if let Some(value) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                    return Some(value);
                }
                // SAFETY: the list goes on until the null pointer, and this was none.
                at = unsafe { at.add(1) };
            }
        }
    }

    /// The six texts of `uname`.
    pub(crate) struct HostName([u8; 390]);

    impl HostName {
        pub(crate) const fn new() -> Self {
            Self([0; 390])
        }

        pub(crate) fn read(&mut self) -> &[u8] {
            call(number::UNAME, [self.0.as_mut_ptr() as usize, 0, 0, 0, 0, 0]);
            let name = self.0.get(65..130).unwrap_or(&[]);
            name.split(|b| *b == 0).next().unwrap_or(&[])
        }
    }

    pub(crate) fn write(fd: i32, bytes: &[u8]) -> isize {
        call(number::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
    }

    pub(crate) fn read(fd: i32, bytes: &mut [u8]) -> isize {
        call(number::READ, [fd as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0])
    }

    pub(crate) fn close(fd: i32) {
        call(number::CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
    }

    pub(crate) fn exit(code: usize) -> ! {
        loop {
            call(number::EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
        }
    }

    fn descriptor(result: isize) -> Option<i32> {
        if result < 0 { None } else { Some(result as i32) }
    }

    /// A descriptor that is readable once SIGTERM or SIGINT has come. A process with PID 1 gets no signal that it
    /// does not ask for.
    pub(crate) fn signals() -> Option<i32> {
        let blocked: u64 = SIGNAL_INT | SIGNAL_TERM | SIGNAL_PIPE;
        let wanted: u64 = SIGNAL_INT | SIGNAL_TERM;
        call(number::SIGPROCMASK, [0, &raw const blocked as usize, 0, 8, 0, 0]);
        let fd = call(number::SIGNALFD4, [usize::MAX, &raw const wanted as usize, 8, NONBLOCK_CLOEXEC, 0, 0]);
        descriptor(fd)
    }

    /// Listens on every address, of both families where the host has both.
    pub(crate) fn listen(port: u16) -> Option<i32> {
        let [high, low] = port.to_be_bytes();
        let mut six = [0u8; 28];
        six[..4].copy_from_slice(&[10, 0, high, low]);
        let mut four = [0u8; 16];
        four[..4].copy_from_slice(&[2, 0, high, low]);
        listen_on(10, &six).or_else(|| listen_on(2, &four))
    }

    fn listen_on(family: usize, address: &[u8]) -> Option<i32> {
        let fd = descriptor(call(number::SOCKET, [family, 1 | NONBLOCK_CLOEXEC, 0, 0, 0, 0]))?;
        let on: i32 = 1;
        let off: i32 = 0;
        call(number::SETSOCKOPT, [fd as usize, 1, 2, &raw const on as usize, 4, 0]);
        if family == 10 {
            call(number::SETSOCKOPT, [fd as usize, 41, 26, &raw const off as usize, 4, 0]);
        }
        let bound = call(number::BIND, [fd as usize, address.as_ptr() as usize, address.len(), 0, 0, 0]);
        if bound < 0 || call(number::LISTEN, [fd as usize, 512, 0, 0, 0, 0]) < 0 {
            close(fd);
            return None;
        }
        Some(fd)
    }

    pub(crate) fn accept(listener: i32) -> i32 {
        call(number::ACCEPT4, [listener as usize, 0, 0, NONBLOCK_CLOEXEC, 0, 0]) as i32
    }

    #[cfg_attr(target_arch = "x86_64", repr(C, packed))]
    #[cfg_attr(not(target_arch = "x86_64"), repr(C))]
    struct Event {
        events: u32,
        token: u64,
    }

    pub(crate) struct Poll(i32);

    impl Poll {
        pub(crate) fn new() -> Option<Self> {
            descriptor(call(number::EPOLL_CREATE1, [0o2_000_000, 0, 0, 0, 0, 0])).map(Self)
        }

        pub(crate) fn add(&self, fd: i32, token: u64) -> bool {
            let event = Event { events: 1, token };
            call(number::EPOLL_CTL, [self.0 as usize, 1, fd as usize, &raw const event as usize, 0, 0]) == 0
        }

        /// Waits for the next event; `None` when it was interrupted.
        pub(crate) fn wait(&self) -> Option<u64> {
            let mut event = Event { events: 0, token: 0 };
            let forever = -1isize as usize;
            let count = call(number::EPOLL_PWAIT, [self.0 as usize, &raw mut event as usize, 1, forever, 0, 8]);
            if count == 1 { Some(event.token) } else { None }
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        exit(101)
    }

    // The compiler calls these for copies and comparisons. Volatile accesses keep it from turning their bodies into
    // calls to themselves.

    /// # Safety
    /// As C's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller vouches for `count` bytes on both sides.
            unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        }
        to
    }

    /// # Safety
    /// As C's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if (to as usize) < from as usize {
            // SAFETY: as for this function; ascending order is right when the target is below.
            return unsafe { memcpy(to, from, count) };
        }
        for at in (0..count).rev() {
            // SAFETY: the caller vouches for `count` bytes on both sides.
            unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        }
        to
    }

    /// # Safety
    /// As C's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller vouches for `count` bytes.
            unsafe { to.add(at).write_volatile(byte as u8) };
        }
        to
    }

    /// # Safety
    /// As C's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        for at in 0..count {
            // SAFETY: the caller vouches for `count` bytes on both sides.
            let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    /// # Safety
    /// As C's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        // SAFETY: as for this function.
        unsafe { memcmp(one, other, count) }
    }
}
