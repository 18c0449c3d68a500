namespace Cmcl.Encoders

open System
open TorchSharp
open Cmcl

/// Sound as encoders take it: another rate, one length, log-mel spectrograms.
[<RequireQualifiedAccess>]
module Sound =
    /// Zero crossings on either side of a sample that its sinc reaches, and where its pass band ends, as a share of half the lower rate.
    let private crossings, private rolloff = 6.0, 0.99

    /// More numbers than this a filter bank has no use for: rates like 44100 and 16000 take 76,000.
    let private mostTaps = 1L <<< 24

    let rec private divisor (a: int) (b: int) : int = if b = 0 then a else divisor b (a % b)

    /// The filters that give `into` samples for every `from` (divided by what both share): phase j of sample t sees
    /// c sinc(c u) cos²(π c u/12) at u = i/from − j/into, |c u| ≤ 6, with c = 0.99 min(from, into).
    let private filters (from: int) (into: int) : torch.Tensor * int64 =
        let band = rolloff * float (min from into)
        let reach = int64 (ceil (crossings * float from / band))

        let phases = (Tensors.range torch.CPU 0L into).``to`` torch.float64
        let places = (Tensors.range torch.CPU -reach (reach + int64 from)).``to`` torch.float64
        use c = band.AsScalar()
        use last = crossings.AsScalar()
        use first = (-crossings).AsScalar()
        use quarter = (Math.PI / (2.0 * crossings)).AsScalar()
        use perFrom = (float from).AsScalar()
        use perInto = (float into).AsScalar()
        let u = (((places / perFrom).unsqueeze 0L - (phases / perInto).unsqueeze 1L) * c).clamp(first, last)
        let window = (u * quarter).cos().squared()
        use gain = (band / float from).AsScalar()
        (torch.special.sinc u) * window * gain, reach

    /// The samples (n) at another rate (⌈n into/from⌉): a sinc under a Hann window, evaluated at the phases that there are.
    /// Fault: `Contradiction` for two rates that share so little that the filters would be too many.
    let resample (from: int) (into: int) (samples: torch.Tensor) : Result<torch.Tensor, Fault list> =
        let shared = divisor from into
        let a, b = from / shared, into / shared

        if a = b then
            Ok(samples.alias ())
        elif int64 b * (int64 a + 14L * int64 (max 1 (a / b))) > mostTaps then
            Error
                [ Fault.Contradiction(
                      $"{from} samples a second cannot be turned into {into} here: the two share no large factor",
                      "resample the recordings beforehand"
                  ) ]
        else
            Ok(
                Tensors.scoped (fun () ->
                    let kernel, reach = filters a b
                    let n = samples.shape[0]
                    let wanted = (n * int64 b + int64 a - 1L) / int64 a
                    let padded = torch.nn.functional.pad (samples, [| reach; reach + int64 a |])

                    let all =
                        torch.nn.functional.conv1d (
                            padded.reshape (1L, 1L, -1L),
                            kernel.``to``(samples.dtype).unsqueeze 1L,
                            stride = Nullable(int64 a)
                        )

                    all.squeeze(0L).t().reshape(-1L).narrow(0L, 0L, wanted).contiguous())
            )

    /// Cut, or filled up at its end, to so many samples: with silence, or with itself as often as it fits whole and then with silence.
    let fit (again: bool) (count: int64) (samples: torch.Tensor) : torch.Tensor =
        let n = samples.shape[0]

        if n >= count then
            samples.narrow(0L, 0L, count).contiguous()
        else
            let whole = if again then samples.repeat (count / n) else samples
            torch.nn.functional.pad (whole, [| 0L; count - whole.shape[0] |])

    /// How far to both sides of a sample silence is looked for, in seconds.
    let private around = 0.0125

    /// Samples (n) without silence at both ends: from the first to the last sample where the mean of |x| over 25 ms is above a share of the
    /// largest |x|. What is silent throughout stays as it is.
    let trim (rate: int) (share: float) (samples: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let x = samples.abs().data<float32>().ToArray()
            let reach = max 1 (int (around * float rate))
            let sums = Array.scan (fun sum (v: float32) -> sum + float v) 0.0 x

            let level i =
                let from, upTo = max 0 (i - reach), min x.Length (i + reach + 1)
                (sums[upTo] - sums[from]) / float (upTo - from)

            let limit = share * float (Array.max x)
            let loud = Array.init x.Length id |> Array.filter (fun i -> level i > limit)

            if loud.Length = 0 then
                samples.alias ()
            else
                samples.narrow(0L, int64 loud[0], int64 (Array.last loud - loud[0] + 1)).contiguous())

    /// Mels of a frequency in Hz: HTK's 2595 log10(1 + f/700); or Slaney's, linear to 1000 Hz (3 mels each 200 Hz) and then
    /// 27 to a factor of 6.4.
    let mels (slaney: bool) (f: float) : float =
        if not slaney then 2595.0 * log10 (1.0 + f / 700.0)
        elif f < 1000.0 then 3.0 * f / 200.0
        else 15.0 + 27.0 * log (f / 1000.0) / log 6.4

    /// The frequency of a number of mels.
    let hertz (slaney: bool) (m: float) : float =
        if not slaney then 700.0 * (10.0 ** (m / 2595.0) - 1.0)
        elif m < 15.0 then 200.0 * m / 3.0
        else 1000.0 * exp ((m - 15.0) * log 6.4 / 27.0)

    /// Triangles over the frequencies of a spectrum, mels × (fft/2 + 1): between neighbours that are equally far apart in mels from
    /// fmin to fmax, of height 1, or of height 2/(width in Hz) so that all have one area.
    let triangles (rate: int) (m: MelInput) : float[,] =
        let low, high = mels m.Slaney m.FMin, mels m.Slaney m.FMax
        let corner i = hertz m.Slaney (low + (high - low) * float i / float (m.Mels + 1))

        Array2D.init m.Mels (m.Fft / 2 + 1) (fun row column ->
            let f = float column * float rate / float m.Fft
            let left, top, right = corner row, corner (row + 1), corner (row + 2)
            let height = max 0.0 (min ((f - left) / (top - left)) ((right - f) / (right - top)))
            if m.EqualArea then height * 2.0 / (right - left) else height)

    /// Hann's window, one period over its length, in the middle of `fft` numbers.
    let private window (m: MelInput) : torch.Tensor =
        let before = (m.Fft - m.Window) / 2

        torch.tensor (
            [| for i in 0 .. m.Fft - 1 ->
                   if i < before || i >= before + m.Window then
                       0f
                   else
                       float32 (0.5 - 0.5 * cos (2.0 * Math.PI * float (i - before) / float m.Window)) |]
        )

    /// The log-mel spectrogram of samples (n), mels × frames: log(max(floor, T |F(w · frame)|²)), with `Range` at least its largest value less
    /// that, less the mean, over std. A frame begins every `Hop` samples; centred, 1 + ⌊n/hop⌋ of them, else 1 + ⌊(n − fft)/hop⌋.
    let logMel (rate: int) (m: MelInput) (samples: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let half = int64 (m.Fft / 2)

            let signal =
                if m.Centre then
                    let mirrored =
                        torch.nn.functional.pad (samples.reshape (1L, 1L, -1L), [| half; half |], PaddingModes.Reflect)

                    mirrored.reshape -1L
                else
                    samples

            let frames = signal.unfold (0L, int64 m.Fft, int64 m.Hop)
            let spectrum = torch.fft.rfft(frames * window m).abs().squared()
            let bank = torch.tensor(triangles rate m).``to`` torch.float32
            use floor' = m.Floor.AsScalar()
            let power = (Tensors.product bank (spectrum.t ())).clamp_min floor'

            let logs =
                match m.Log with
                | "ln" -> power.log ()
                | "log10" -> power.log10 ()
                | _ ->
                    use ten = 10.0.AsScalar()
                    power.log10 () * ten

            let ranged =
                match m.Range with
                | None -> logs
                | Some range -> torch.maximum (logs, logs.max().plus -range)

            let kept =
                match m.Frames with
                | Some most when int64 most < ranged.shape[1] -> ranged.narrow (1L, 0L, int64 most)
                | _ -> ranged

            use mean = m.Mean.AsScalar()
            use std = m.Std.AsScalar()
            (kept - mean) / std)

    /// The fewest samples that make a frame.
    let private leastFor (m: MelInput) : int64 = int64 (if m.Centre then m.Fft / 2 + 1 else m.Fft)

    let private count (input: SoundInput) (seconds: float) : int64 = int64 (Math.Round(seconds * float input.Rate))

    /// A description whose recordings are too short for one frame, or that has two spectrograms.
    let check (d: Description) (input: SoundInput) : Result<unit, Fault list> =
        match input.Mel, input.Seconds with
        | Some _, _ when d.Before.IsSome ->
            Error
                [ Fault.Contradiction(
                      $"the encoder '{d.Name}' has both 'mel' and 'before', two spectrograms",
                      "leave out one of them"
                  ) ]
        | Some m, Some seconds when count input seconds < leastFor m ->
            Error
                [ Fault.Contradiction(
                      $"{seconds} seconds at {input.Rate} samples a second do not fill one frame of {m.Fft} samples",
                      "give more seconds or a smaller fft"
                  ) ]
        | _ -> Ok()

    /// How many seconds of a file are of use.
    let seconds (input: SoundInput) : float =
        match input.Seconds, input.Trim with
        | Some seconds, None -> min seconds input.Most + 1.0
        | _ -> input.Most + 1.0

    /// Samples as they go into a spectrogram or the encoder, and which share of them, from the first, is the recording's own.
    let private laid (input: SoundInput) (samples: torch.Tensor) : torch.Tensor * float =
        let trimmed =
            match input.Trim with
            | Some share -> trim input.Rate share samples
            | None -> samples

        let cut = trimmed.narrow (0L, 0L, min trimmed.shape[0] (count input input.Most))

        let scaled =
            match input.Peak with
            | None -> cut
            | Some peak ->
                use tiny = 1e-9.AsScalar()
                use peak = peak.AsScalar()
                cut / cut.abs().max().clamp_min tiny * peak

        let silence = count input input.Around
        let own = torch.nn.functional.pad (scaled, [| silence; silence |])
        let least = max (count input input.Least) (input.Mel |> Option.map leastFor |> Option.defaultValue 1L)

        let filled =
            match input.Seconds with
            | Some seconds -> fit input.Repeat (count input seconds) own
            | None -> fit input.Repeat (max least own.shape[0]) own

        use gain = input.Gain.AsScalar()
        filled * gain, min 1.0 (float own.shape[0] / float filled.shape[0])

    /// Windows of a recording's frames or samples, each a row. Fault, as an exception: `Contradiction` for fewer than one window takes.
    let private cut (timeLast: bool) (w: Windows) (x: torch.Tensor) : torch.Tensor =
        let time = if timeLast then x.dim () - 1L else 0L

        if x.shape[int time] < int64 w.Length then
            Check.fail (
                Fault.Contradiction(
                    $"a recording has {x.shape[int time]} frames, fewer than the {w.Length} of a window",
                    "fill recordings up with 'shortest'"
                )
            )

        let pieces = x.unfold (time, int64 w.Length, int64 w.Hop)

        match x.dim () with
        | 1L -> pieces
        // The window comes last: frames × … from its place, mels before frames stay.
        | _ when timeLast -> pieces.permute (1L, 0L, 2L)
        | _ -> pieces.permute (0L, 2L, 1L)

    /// One recording as the encoder takes it (float32), rows × samples, or rows × mels × frames as the description lays them out: one row, or one a
    /// window. With it the share of a row, from its first frame, that is the recording's own and not what it was filled up with.
    /// `before` makes the spectrogram where the description has a model for that (frames × columns, dimensions of 1 dropped).
    let prepare
        (before: (torch.Tensor -> torch.Tensor) option)
        (input: SoundInput)
        (recording: Recording)
        : Result<torch.Tensor * float, Fault list> =
        use scope = torch.NewDisposeScope()

        try
            resample recording.Rate input.Rate (torch.tensor recording.Samples)
            |> Result.map (fun samples ->
                let samples, own = laid input samples

                let frames, timeLast =
                    match before, input.Mel with
                    | Some run, _ ->
                        let y = run (samples.unsqueeze 0L)
                        y.reshape (-1L, Array.last y.shape), false
                    | None, Some m ->
                        let spectrogram = logMel input.Rate m samples
                        (if m.FramesFirst then spectrogram.t () else spectrogram), not m.FramesFirst
                    | None, None -> samples, true

                let rows =
                    match input.Windows with
                    | Some windows -> cut timeLast windows frames
                    | None -> frames.unsqueeze 0L

                let channel =
                    match input.Mel with
                    | Some m when m.Channel -> rows.unsqueeze 1L
                    | _ -> rows

                let result = channel.contiguous().alias()
                scope.MoveToOuter result, own)
        with CmclException fault ->
            Error [ fault ]
