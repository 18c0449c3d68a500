/// All that the tests of one process write, and what they start, lies in one folder, which goes with the process.
module Cmcl.Tests.TemporaryFolder

open System
open System.IO

let private folder =
    lazy
        (let folder = (Directory.CreateTempSubdirectory "cmcl-tests-").FullName
         Environment.SetEnvironmentVariable("TMPDIR", folder)
         folder)

/// Makes the folder the one for temporary files, of this process and of its children; before anything asks for one.
let make () : unit = folder.Force() |> ignore

/// Deletes the folder; what a process still holds there stays.
let delete () : unit =
    try
        Directory.Delete(folder.Value, true)
    with
    | :? IOException
    | :? UnauthorizedAccessException -> ()
