//! Every algorithm of the gateway as the Linux kernel calls it.

/// A cipher of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// Value of `encryption`.
    pub name: &'static str,
    /// Bytes of `encryption_key`, salt included.
    pub key_bytes: usize,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Bits of ICV of a cipher that brings its own.
    pub icv_bits: Option<u32>,
}

/// An integrity algorithm of AH, and of ESP beside a cipher that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac {
    /// Value of `integrity`.
    pub name: &'static str,
    /// Bytes of `integrity_key`.
    pub key_bytes: usize,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Bits of ICV.
    pub icv_bits: u32,
}

const GCM: &str = "rfc4106(gcm(aes))";
const GMAC: &str = "rfc4543(gcm(aes))";

/// Ciphers that bring their own integrity.
pub const COMBINED: [Cipher; 12] = [
    combined("aes128gcm16", 20, GCM, 128),
    combined("aes192gcm16", 28, GCM, 128),
    combined("aes256gcm16", 36, GCM, 128),
    combined("aes128gcm12", 20, GCM, 96),
    combined("aes192gcm12", 28, GCM, 96),
    combined("aes256gcm12", 36, GCM, 96),
    combined("aes128gcm8", 20, GCM, 64),
    combined("aes192gcm8", 28, GCM, 64),
    combined("aes256gcm8", 36, GCM, 64),
    combined("aes128gmac", 20, GMAC, 128),
    combined("aes256gmac", 36, GMAC, 128),
    combined("chacha20poly1305", 36, "rfc7539esp(chacha20,poly1305)", 128),
];

/// Ciphers that need a [`Mac`] beside them.
pub const SEPARATE: [Cipher; 8] = [
    separate("null", 0, "ecb(cipher_null)"),
    separate("aes128", 16, "cbc(aes)"),
    separate("aes192", 24, "cbc(aes)"),
    separate("aes256", 32, "cbc(aes)"),
    separate("aes128ctr", 20, "rfc3686(ctr(aes))"),
    separate("aes192ctr", 28, "rfc3686(ctr(aes))"),
    separate("aes256ctr", 36, "rfc3686(ctr(aes))"),
    separate("3des", 24, "cbc(des3_ede)"),
];

/// All integrity algorithms but GMAC, which the kernel does not have in AH.
pub const MACS: [Mac; 7] = [
    mac("md5_96", 16, "hmac(md5)", 96),
    mac("sha1_96", 20, "hmac(sha1)", 96),
    mac("sha256_128", 32, "hmac(sha256)", 128),
    mac("sha384_192", 48, "hmac(sha384)", 192),
    mac("sha512_256", 64, "hmac(sha512)", 256),
    mac("aes128_xcbc_96", 16, "xcbc(aes)", 96),
    mac("aes128_cmac_96", 16, "cmac(aes)", 96),
];

const fn combined(
    name: &'static str,
    key_bytes: usize,
    kernel: &'static str,
    icv_bits: u32,
) -> Cipher {
    Cipher {
        name,
        key_bytes,
        kernel,
        icv_bits: Some(icv_bits),
    }
}

const fn separate(name: &'static str, key_bytes: usize, kernel: &'static str) -> Cipher {
    Cipher {
        name,
        key_bytes,
        kernel,
        icv_bits: None,
    }
}

const fn mac(name: &'static str, key_bytes: usize, kernel: &'static str, icv_bits: u32) -> Mac {
    Mac {
        name,
        key_bytes,
        kernel,
        icv_bits,
    }
}

/// What an SA does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// ESP, with a MAC unless the cipher brings its own integrity.
    Esp(Cipher, Option<Mac>),
    /// AH.
    Ah(Mac),
}

impl Transform {
    /// Every ESP transform there is.
    pub fn esp() -> Vec<Self> {
        let combined = COMBINED.map(|cipher| Self::Esp(cipher, None));
        let pairs = SEPARATE
            .into_iter()
            .flat_map(|cipher| MACS.map(|mac| Self::Esp(cipher, Some(mac))));
        combined.into_iter().chain(pairs).collect()
    }

    /// Every AH transform that the kernel knows.
    pub fn ah() -> Vec<Self> {
        MACS.map(Self::Ah).into()
    }

    /// `protocol` of its SA, here and in the kernel.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Esp(..) => "esp",
            Self::Ah(_) => "ah",
        }
    }

    /// Its algorithms' names in the configuration.
    pub fn name(self) -> String {
        match self {
            Self::Esp(cipher, None) => cipher.name.to_owned(),
            Self::Esp(cipher, Some(mac)) => format!("{}+{}", cipher.name, mac.name),
            Self::Ah(mac) => mac.name.to_owned(),
        }
    }

    /// The cipher, if there is one.
    pub fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Esp(cipher, _) => Some(cipher),
            Self::Ah(_) => None,
        }
    }

    /// The MAC, if there is one.
    pub fn mac(self) -> Option<Mac> {
        match self {
            Self::Esp(_, mac) => mac,
            Self::Ah(mac) => Some(mac),
        }
    }
}
