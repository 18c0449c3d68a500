namespace global

open System
open System.Threading

/// Loaded into a command by `DOTNET_STARTUP_HOOKS`: raises in a thread of its own once the command is `cmcl worker` at work.
type internal StartupHook =
    static member Initialize() =
        match Environment.GetEnvironmentVariable "CMCL_TEST_RAISE" with
        | null -> ()
        | message ->
            let raiseLater () =
                // The worker has handed standard output over to its answers.
                SpinWait.SpinUntil(fun () -> Object.ReferenceEquals(Console.Out, Console.Error))
                raise (InvalidOperationException message)

            Thread(raiseLater, IsBackground = true).Start()
