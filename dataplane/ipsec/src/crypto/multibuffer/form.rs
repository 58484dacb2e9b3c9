//! Which form of a kernel the CPU takes, and how its functions come to be compiled for that CPU.

use std::sync::OnceLock;

/// Code for one kind of CPU. There is a value only where the CPU can run it, which is what makes
/// calling it safe: [`Form::all`] makes them, nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Form(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Four blocks a register.
    Avx512,
    /// Two blocks a register.
    Vaes,
    /// One block a register.
    AesNi,
}

impl Form {
    /// What this CPU can run, the best first.
    pub(in super::super) fn all() -> impl Iterator<Item = Self> {
        let blocks = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        let pairs = blocks
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        let fours = pairs
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("bmi2");
        let forms = [
            (fours, Kind::Avx512),
            (pairs, Kind::Vaes),
            (blocks, Kind::AesNi),
        ];
        forms
            .into_iter()
            .filter_map(|(runs, kind)| runs.then_some(Self(kind)))
    }

    /// The form that new keys are expanded for, if this CPU runs one. Found out once.
    pub(in super::super) fn chosen() -> Option<Self> {
        static CHOSEN: OnceLock<Option<Form>> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::all().next())
    }

    /// Blocks of a register.
    pub(super) const fn blocks(self) -> usize {
        match self.0 {
            Kind::Avx512 => 4,
            Kind::Vaes => 2,
            Kind::AesNi => 1,
        }
    }

    /// For operators.
    pub(in super::super) const fn name(self) -> &'static str {
        match self.0 {
            Kind::Avx512 => "avx512+vaes",
            Kind::Vaes => "avx2+vaes",
            Kind::AesNi => "aes-ni",
        }
    }
}

/// Makes a function that answers `$body` compiled for a form, what it calls included as far as it
/// is inlined. `$body` is generic over registers and registers of a group; with `[rounds]` the
/// rounds of AES that it is compiled for stand between these. What is answered may be called
/// wherever the form exists.
macro_rules! compiled {
    ($name:ident: $body:ident $arguments:tt $(-> $result:ty)?) => {
        fn $name(form: Form) -> compiled!(@pointer $arguments $(-> $result)?) {
            compiled!(@forms $body, $arguments, ($(-> $result)?), (), ());
            match form.blocks() {
                4 => fours,
                2 => pairs,
                _ => blocks,
            }
        }
    };
    ($name:ident[rounds]: $body:ident $arguments:tt $(-> $result:ty)?) => {
        fn $name(form: Form, rounds: usize) -> compiled!(@pointer $arguments $(-> $result)?) {
            compiled!(
                @forms $body, $arguments, ($(-> $result)?), (<const ROUNDS: usize>), (ROUNDS,)
            );
            match (form.blocks(), rounds) {
                (4, 10) => fours::<10>,
                (4, 12) => fours::<12>,
                (4, _) => fours::<14>,
                (2, 10) => pairs::<10>,
                (2, 12) => pairs::<12>,
                (2, _) => pairs::<14>,
                (_, 10) => blocks::<10>,
                (_, 12) => blocks::<12>,
                (_, _) => blocks::<14>,
            }
        }
    };
    (@pointer ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        unsafe fn($($type),*) $(-> $result)?
    };
    (@forms $body:ident, $arguments:tt, $result:tt, $generic:tt, $rounds:tt) => {
        compiled!(
            @form fours, __m512i, $body, $arguments, $result, $generic, $rounds,
            "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl,bmi2"
        );
        compiled!(
            @form pairs, __m256i, $body, $arguments, $result, $generic, $rounds,
            "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq"
        );
        compiled!(
            @form blocks, __m128i, $body, $arguments, $result, $generic, $rounds,
            "aes,pclmulqdq,ssse3,sse4.1"
        );
    };
    (
        @form $form:ident, $lanes:ty, $body:ident, ($($argument:ident: $type:ty),*),
        ($($result:tt)*), ($($generic:tt)*), ($($rounds:tt)*), $features:literal
    ) => {
        #[target_feature(enable = $features)]
        fn $form $($generic)* ($($argument: $type),*) $($result)* {
            // SAFETY: these are the features that this function is compiled for.
            let cpu = unsafe { Cpu::<$lanes>::proven() };
            $body::<$lanes, $($rounds)* { <$lanes as Lanes>::GROUP }>(cpu, $($argument),*)
        }
    };
}
pub(super) use compiled;
