//! The smallest XDP program that feeds AF_XDP sockets, put into the kernel by hand: the ports are
//! tested here, not the steering, and packets of several frames need a program that says `frags`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use xipsec::port::xdp::program::AttachMode;

// include/uapi/linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const HAS_FRAGS: u32 = 1 << 5;
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

/// `union bpf_attr`, as far as it is used here.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 128])
    }

    fn word(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn address<T: ?Sized>(mut self, offset: usize, target: &T) -> Self {
        let address = (&raw const *target).cast::<u8>().expose_provenance() as u64;
        self.0[offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        self
    }

    fn descriptor(self, offset: usize, fd: &OwnedFd) -> Self {
        self.word(offset, fd.as_raw_fd().cast_unsigned())
    }

    fn call(mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        let size = size_of::<Self>();
        // SAFETY: the attributes are zero where the command does not look, and what they point to
        // is borrowed by the callers of this function until it returns.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self, size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(result)
    }

    fn open(self, command: libc::c_long) -> io::Result<OwnedFd> {
        let fd = libc::c_int::try_from(self.call(command)?).map_err(io::Error::other)?;
        // SAFETY: the command answers with a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The program on one interface, until dropped.
pub(crate) struct Redirect {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    pub(crate) fn attach(index: u32, mode: AttachMode, frags: bool) -> io::Result<Self> {
        let map = Attributes::new()
            .word(0, MAP_TYPE_XSKMAP)
            .word(4, 4)
            .word(8, 4)
            .word(12, 64)
            .open(MAP_CREATE)?;
        let map_fd = u64::from(map.as_raw_fd().cast_unsigned());
        let instructions: [u64; 6] = [
            0x0000_0000_0010_1261,                // r2 = context->rx_queue_index
            0x0000_0000_0000_1118 | map_fd << 32, // r1 = map
            0,                                    // second half of the same
            0x0000_0002_0000_03b7,                // r3 = XDP_PASS, where there is no socket
            0x0000_0033_0000_0085,                // r0 = bpf_redirect_map(r1, r2, r3)
            0x0000_0000_0000_0095,                // exit
        ];
        let program = Attributes::new()
            .word(0, PROGRAM_TYPE_XDP)
            .word(4, 6)
            .address(8, &instructions)
            .address(16, c"MIT")
            .word(44, if frags { HAS_FRAGS } else { 0 })
            .word(68, ATTACH_TYPE_XDP)
            .open(PROGRAM_LOAD)?;
        let flag = match mode {
            AttachMode::Native => NATIVE,
            AttachMode::Generic => GENERIC,
        };
        let link = Attributes::new()
            .descriptor(0, &program)
            .word(4, index)
            .word(8, ATTACH_TYPE_XDP)
            .word(12, flag)
            .open(LINK_CREATE)?;
        Ok(Self { map, _link: link })
    }

    pub(crate) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let attributes = Attributes::new()
            .descriptor(0, &self.map)
            .address(8, &queue)
            .address(16, &value);
        attributes.call(MAP_UPDATE).map(drop)
    }
}
