namespace Cmcl

open System
open System.IO

/// How much memory a run will take, from sizes alone, before it starts.
[<RequireQualifiedAccess>]
module Estimate =
    /// What a process takes with libtorch loaded and nothing to do, and what a cell takes beside its tensors.
    let private ofProcess, ofCell = 400L <<< 20, 100L <<< 20

    let private size (plan: Plan) : int64 =
        match plan.Settings.Dtype with
        | Dtype.Float32 -> 4L
        | Dtype.Float64 -> 8L

    /// Bytes of a method with a seed: training rows as they are and rotated, heads with gradients and moments, what is kept of each step for
    /// measuring, and the heads at each step's end.
    let cell (stream: Cmcl.Stream) (plan: Plan) : int64 =
        let size = size plan
        let added = Lift.added plan.Settings.Features
        let raw = Stream.modalities stream |> List.map snd
        let d = Stream.joint stream
        let widths = raw |> List.map (fun columns -> columns + added)
        let columns (s: Step) = s.A.Features.shape[1] + added, s.B.Features.shape[1] + added

        let rows (s: Step) =
            let a, b = columns s
            s.Train.LongLength * (a + b) * size

        let held =
            match plan.Method.Learner, plan.Method.Curriculum with
            | Learner.Nothing, _ -> 0L
            | _, Curriculum.StepByStep -> stream.Steps |> List.map rows |> List.max
            | _, Curriculum.AllAtOnce -> List.sumBy rows stream.Steps

        let kept (s: Step) =
            let a, b = columns s
            let ra, rb = min s.Train.LongLength a, min s.Train.LongLength b
            8L * (ra * a + rb * b + ra * rb) + size * d * (a + b)

        ofCell
        + (if held > Limits.usual.Rows then 128L <<< 20 else 2L * held)
        + 6L * size * d * List.sum widths
        + List.sumBy kept stream.Steps
        + Limits.usual.Held

    /// Bytes of a run at its peak: the dearest of its methods in each job.
    let run (stream: Cmcl.Stream) (jobs: int) (plans: Plan list) : int64 =
        ofProcess + int64 jobs * (plans |> List.map (cell stream) |> List.max)

    /// Bytes that this process may still take: what the system has, or its container allows.
    let available () : int64 =
        let allowed = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes
        let told = "/proc/meminfo"

        if File.Exists told then
            match File.ReadLines told |> Seq.tryFind _.StartsWith("MemAvailable:") with
            | Some line -> min allowed (1024L * int64 (line.Replace("MemAvailable:", "").Replace("kB", "").Trim()))
            | None -> allowed
        else
            allowed

    /// Refuses a run that needs more than is available.
    let check (available: int64) (stream: Cmcl.Stream) (jobs: int) (plans: Plan list) : Result<unit, Fault list> =
        let needed = run stream jobs plans
        let gib (bytes: int64) = (float bytes / float (1L <<< 30)).ToString("F1", Globalization.CultureInfo.InvariantCulture)

        if needed <= available then
            Ok()
        else
            let less = if jobs > 1 then $"use fewer --jobs than {jobs}, or " else ""

            Error
                [ Fault.Contradiction(
                      $"the run needs about {gib needed} GiB of memory, and {gib available} GiB are free",
                      $"{less}free some, or say --no-memory-check if you know better"
                  ) ]
