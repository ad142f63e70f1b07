//! Every story of the testbed on real servers of every version. The same stories run on the simulator.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use testbed::Valkey;
use testbed::scenario::{Real, all};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The stories mostly wait for servers; a machine of two cores has room for more than two of them.
    arguments.test_threads.get_or_insert(4);
    let trials = Valkey::all().into_iter().flat_map(|valkey| {
        all().into_iter().map(move |scenario| {
            let valkey = valkey.clone();
            Trial::test(format!("{} on Valkey {}", scenario.name, valkey.version), move || {
                let mut world = Real::new(&scenario, &valkey, Path::new(env!("CARGO_BIN_EXE_valkeeper")))?;
                (scenario.story)(&mut world).map_err(|error| format!("{error:#}\n{}", world.diagnosis()).into())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
