//! What a scenario, or a stranger's driver, finds beside it in each flavour.
//!
//! A source file that is to be explored names the layer as `super::core`, threads and what orders
//! them as `super::stage` and `super::sync`. [`crate::flavours!`] includes it once a flavour.

/// The layer and its surroundings as loom explores them.
#[path = "."]
pub mod under_loom {
    pub use ::loom::{sync, thread};
    pub use blkmq_core_loom as core;

    // That a file is loaded once a flavour is the purpose.
    #[allow(clippy::duplicate_mod)]
    #[path = "stage.rs"]
    pub mod stage;
}

/// The layer and its surroundings as shuttle explores them.
#[path = "."]
pub mod under_shuttle {
    pub use ::shuttle::{sync, thread};
    pub use blkmq_core_shuttle as core;

    // That a file is loaded once a flavour is the purpose.
    #[allow(clippy::duplicate_mod)]
    #[path = "stage.rs"]
    pub mod stage;
}

/// Includes source files once for each explorer's flavour of the layer.
///
/// The modules it makes are called `under_loom` and `under_shuttle`. In each, the named files stand
/// beside `core` (the layer), `sync` and `thread` (as in `std`, but explored) and `stage`
/// ([`under_loom::stage`]). So a file that says `use super::core::Driver;` implements the driver
/// for both. The paths are relative to the file that calls the macro, which has to be `main.rs`,
/// `lib.rs`, `mod.rs` or a test's own file.
///
/// The named files must say `super::` and never `crate::` for each other and for what is listed
/// above.
///
/// ```text
/// blkmq_lab::flavours! {
///     #[path = "my_driver.rs"]
///     pub mod my_driver;
/// }
///
/// const SCENARIOS: &[Scenario] = &[Scenario {
///     name: "my-driver",
///     about: "Two submitters and one slot",
///     row: None,
///     bug: None,
///     loom: Some(Plan::clean(under_loom::my_driver::two_submitters, &[3])),
///     shuttle: Some(Plan::clean(under_shuttle::my_driver::two_submitters, &[3])),
/// }];
///
/// fn main() {
///     blkmq_lab::main_if_child(SCENARIOS);
///     // ...
/// }
/// ```
#[macro_export]
macro_rules! flavours {
    ($($(#[$attribute:meta])* $visibility:vis mod $name:ident;)+) => {
        // That a file is loaded once a flavour is the purpose.
        #[allow(clippy::duplicate_mod)]
        #[path = "."]
        pub(crate) mod under_loom {
            #[allow(unused_imports)]
            pub(crate) use $crate::flavour::under_loom::{core, stage, sync, thread};
            $($(#[$attribute])* $visibility mod $name;)+
        }

        // That a file is loaded once a flavour is the purpose.
        #[allow(clippy::duplicate_mod)]
        #[path = "."]
        pub(crate) mod under_shuttle {
            #[allow(unused_imports)]
            pub(crate) use $crate::flavour::under_shuttle::{core, stage, sync, thread};
            $($(#[$attribute])* $visibility mod $name;)+
        }
    };
}
