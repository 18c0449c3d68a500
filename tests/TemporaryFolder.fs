/// All that the tests of one process write, and what they start, lies in one folder, which goes with the process. First in the compile order:
/// what other files begin with may make folders already.
module Cmcl.Tests.TemporaryFolder

open System
open System.IO

/// The folder of this process; its children inherit it as theirs.
let private root: string =
    let folder = (Directory.CreateTempSubdirectory "cmcl-tests-").FullName
    Environment.SetEnvironmentVariable("TMPDIR", folder)
    folder

/// Deletes the folder; what a process still holds there stays.
let delete () : unit =
    try
        Directory.Delete(root, true)
    with
    | :? IOException
    | :? UnauthorizedAccessException -> ()
