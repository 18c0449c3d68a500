/// Recordings as encoders take them.
module Cmcl.Tests.SoundInputTests

open System
open System.IO
open System.Text
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

// ---- recordings --------------------------------------------------------------------------------------------------

/// A WAVE file of samples as they are laid down.
let wave (format: int) (bits: int) (rate: int) (channels: int) (data: byte[]) : byte[] =
    use memory = new MemoryStream()
    use w = new BinaryWriter(memory)
    w.Write "RIFF"B
    w.Write(uint32 (4 + 8 + 5 + 1 + 8 + 16 + 8 + data.Length))
    w.Write "WAVE"B
    // A chunk of no interest, of an odd length.
    w.Write "LIST"B
    w.Write 5u
    w.Write "hello\000"B
    w.Write "fmt "B
    w.Write 16u
    w.Write(uint16 format)
    w.Write(uint16 channels)
    w.Write(uint32 rate)
    w.Write(uint32 (rate * channels * bits / 8))
    w.Write(uint16 (channels * bits / 8))
    w.Write(uint16 bits)
    w.Write "data"B
    w.Write(uint32 data.Length)
    w.Write data
    memory.ToArray()

let sixteen (samples: float seq) : byte[] =
    samples |> Seq.map (fun x -> BitConverter.GetBytes(int16 (round (x * 32767.0)))) |> Array.concat

let private singles (x: float32) = BitConverter.GetBytes x

let private readWave (seconds: float) (bytes: byte[]) : Result<Recording, Fault list> =
    let path = Path.GetTempFileName()

    try
        File.WriteAllBytes(path, bytes)
        Wave.read seconds path
    finally
        File.Delete path

let private waves =
    let refused title (words: string) (bytes: byte[]) =
        testCase title (fun () ->
            match readWave 9.0 bytes with
            | Error [ Fault.Unreadable(_, reason) ] -> Expect.stringContains reason words "the reason"
            | other -> failtest $"%A{other}")

    let good = wave 1 16 8000 1 (sixteen [ 0.0; 0.5 ])

    testList
        "recordings"
        [ testCase "every width, and the mean of channels" (fun () ->
              for format, bits, data in
                  [ 1, 8, [| 128uy; 192uy; 0uy; 64uy |]
                    1, 16, [| 0uy; 0uy; 0uy; 0x40uy; 0uy; 0x80uy; 0uy; 0xC0uy |]
                    1, 24, [| 0uy; 0uy; 0uy; 0uy; 0uy; 0x40uy; 0uy; 0uy; 0x80uy; 0uy; 0uy; 0xC0uy |]
                    1,
                    32,
                    Array.collect (fun (x: int) -> BitConverter.GetBytes x) [| 0; 0x40000000; Int32.MinValue; -0x40000000 |]
                    3, 32, Array.collect singles [| 0f; 0.5f; -1f; -0.5f |]
                    3, 64, Array.collect (fun (x: float) -> BitConverter.GetBytes x) [| 0.0; 0.5; -1.0; -0.5 |] ] do
                  let read channels = (readWave 9.0 (wave format bits 8000 channels data) |> Check.get).Samples
                  Expect.equal (read 1) [| 0f; 0.5f; -1f; -0.5f |] $"{format}, {bits} bits"
                  Expect.equal (read 2) [| 0.25f; -0.75f |] $"{format}, {bits} bits, two channels")
          testCase "no more seconds than asked for" (fun () ->
              let read = readWave 0.5 (wave 1 16 100 1 (sixteen (Seq.replicate 200 0.25))) |> Check.get
              Expect.equal (read.Rate, read.Samples.Length) (100, 50) "half a second")
          refused "no RIFF" "not a RIFF WAVE" (Array.append "FORM"B (Array.skip 4 good))
          refused "nothing" "it is empty" [||]
          refused "no samples" "no samples" (Array.take (good.Length - 12) good)
          refused "a chunk that promises more" "promises 4 bytes, but only 2" (Array.take (good.Length - 2) good)
          refused "a coding" "format 85" (wave 0x55 16 8000 1 [| 0uy; 0uy |])
          refused "no channel" "0 channels" (wave 1 16 8000 0 [| 0uy; 0uy |])
          refused "a NaN" "sample 1" (wave 3 32 8000 1 (Array.collect singles [| 0f; nanf |]))
          refused "no frame" "no samples" (wave 1 16 8000 2 [| 0uy; 0uy |])
          testPropertyWithConfig
              { FsCheckConfig.defaultConfig with maxTest = 3000 }
              "damaged bytes are read or refused, nothing else"
              (fun (changes: (uint8 * byte) list) (cut: uint8) ->
                  let bytes = Array.copy good

                  for at, value in changes do
                      bytes[int at % bytes.Length] <- value

                  match readWave 9.0 (Array.take (bytes.Length - int cut % 8) bytes) with
                  | Ok read -> Expect.isLessThanOrEqual read.Samples.Length bytes.Length "no more than the file holds"
                  | Error [ Fault.Unreadable _ ] -> ()
                  | other -> failtest $"%A{other}") ]

// ---- spectra -----------------------------------------------------------------------------------------------------

let private sine (rate: int) (hz: float) (count: int) : torch.Tensor =
    torch.tensor [| for i in 0 .. count - 1 -> float32 (sin (2.0 * Math.PI * hz * float i / float rate)) |]

let plainMel: MelInput =
    { Fft = 16
      Window = 12
      Hop = 5
      Mels = 4
      FMin = 100.0
      FMax = 3600.0
      Slaney = false
      EqualArea = false
      Centre = true
      Log = "ln"
      Floor = 1e-8
      Range = None
      Frames = None
      Mean = 0.0
      Std = 1.0
      FramesFirst = false
      Channel = false }

/// The log-mel spectrogram by its sums, in float64.
let private logMelReference (rate: int) (m: MelInput) (x: float[]) : float[,] =
    let mirrored i =
        if i < 0 then x[-i]
        elif i >= x.Length then x[2 * x.Length - 2 - i]
        else x[i]

    let from frame = frame * m.Hop - (if m.Centre then m.Fft / 2 else 0)
    let frames = if m.Centre then 1 + x.Length / m.Hop else 1 + (x.Length - m.Fft) / m.Hop
    let before = (m.Fft - m.Window) / 2

    let hann i =
        if i < before || i >= before + m.Window then
            0.0
        else
            (sin (Math.PI * float (i - before) / float m.Window)) ** 2.0

    let power frame bin =
        let part (f: float -> float) =
            Array.sum
                [| for i in 0 .. m.Fft - 1 ->
                       hann i * mirrored (from frame + i) * f (2.0 * Math.PI * float (i * bin) / float m.Fft) |]

        part cos ** 2.0 + part sin ** 2.0

    let bank = Sound.triangles rate m

    Array2D.init m.Mels frames (fun mel frame ->
        let sum = Array.sum [| for bin in 0 .. m.Fft / 2 -> bank[mel, bin] * power frame bin |]
        let sum = max m.Floor sum

        let level =
            match m.Log with
            | "ln" -> log sum
            | "log10" -> log10 sum
            | _ -> 10.0 * log10 sum

        (level - m.Mean) / m.Std)

let plainSound: SoundInput =
    { Rate = 8000
      Seconds = None
      Least = 0.0
      Most = 60.0
      Repeat = false
      Trim = None
      Peak = None
      Gain = 1.0
      Around = 0.0
      Mel = None
      Windows = None
      Pool = Pool.Done }

let described (input: Input) : Description =
    { Name = "made"
      Kind = ModelKind.Onnx
      File = "model.onnx"
      InputName = None
      OutputName = None
      Zeros = Map.empty
      Columns = None
      Before = None
      Input = input }

let private sounds =
    testList
        "spectra"
        [ test "mels: HTK's and Slaney's as published" (fun () ->
              // 1000 Hz is about 1000 mels on HTK's scale; Slaney's: 60 Hz is 0.9, 200 Hz is 3, 1000 Hz is 15, 6400 Hz is 42.
              near "HTK" 1e-4 (Sound.mels false 1000.0) 999.9855
              near "HTK, 440" 1e-4 (Sound.mels false 440.0) 549.6387

              for hz, mels in [ 60.0, 0.9; 200.0, 3.0; 1000.0, 15.0; 6400.0, 42.0 ] do
                  near "Slaney" close (Sound.mels true hz) mels

              for hz in [ 0.0; 30.0; 999.0; 1000.0; 5000.0 ] do
                  for slaney in [ false; true ] do
                      near "there and back" close (Sound.hertz slaney (Sound.mels slaney hz)) hz)
          test "triangles: heights of 1 at their tops, or areas of 1" (fun () ->
              let m = { plainMel with Fft = 2000; Mels = 7 }
              let rate = 8000

              let heights = Sound.triangles rate m
              let areas = Sound.triangles rate { m with EqualArea = true }

              for row in 0 .. m.Mels - 1 do
                  let height = Array.max heights[row, *]
                  Expect.isTrue (height > 0.97 && height <= 1.0) "height"
                  let area = Array.sum areas[row, *] * float rate / float m.Fft
                  near "area" 0.02 area 1.0)
          test "log-mel is what its sums are" (fun () ->
              let random = Random 3
              let x = [| for _ in 1..47 -> random.NextDouble() - 0.5 |]
              let samples = torch.tensor (Array.map float32 x)

              for centre in [ true; false ] do
                  for log in [ "ln"; "log10"; "db" ] do
                      for slaney in [ true; false ] do
                          let m =
                              { plainMel with
                                  Centre = centre
                                  Log = log
                                  Slaney = slaney
                                  EqualArea = slaney
                                  Mean = -1.5
                                  Std = 2.5 }

                          let expected = logMelReference 8000 m (Array.map (float32 >> float) x)
                          same $"{centre} {log} {slaney}" 1e-4 (Sound.logMel 8000 m samples) (torch.tensor expected))
          test "silence is the floor" (fun () ->
              let level = Sound.logMel 8000 plainMel (torch.zeros 40L)
              same "level" single level (torch.full_like (level, number (log 1e-8))))
          test "another rate: a tone stays the tone, above half the rate nothing is left" (fun () ->
              for from, into in [ 44100, 16000; 16000, 44100; 48000, 16000; 8000, 16000; 22050, 16000 ] do
                  let count = from / 5
                  let out = Sound.resample from into (sine from 440.0 count) |> Check.get
                  let wanted = int (ceil (float count * float into / float from))
                  Expect.equal out.shape [| int64 wanted |] $"{from} → {into}: length"
                  let inner (t: torch.Tensor) = t.narrow (0L, 200L, int64 wanted - 400L)
                  let worst = (inner out - inner (sine into 440.0 wanted)).abs().max() |> item
                  Expect.isLessThan worst 0.01 $"{from} → {into}: the tone"

              let high = Sound.resample 48000 16000 (sine 48000 12000.0 9600) |> Check.get
              Expect.isLessThan (high.narrow(0L, 200L, 2800L).abs().max() |> item) 0.02 "a tone of 12 kHz")
          test "another rate is the sum over sincs under a window" (fun () ->
              let from, into = 7, 4
              let x = [| for i in 0..29 -> float (i * i % 11) - 5.0 |]
              let c = 0.99 * float into

              let at (j: int) =
                  Array.sum
                      [| for i in 0..29 do
                             let u = c * (float i / float from - float j / float into)

                             if abs u <= 6.0 then
                                 let sinc = if u = 0.0 then 1.0 else sin (Math.PI * u) / (Math.PI * u)
                                 x[i] * sinc * cos (Math.PI * u / 12.0) ** 2.0 * c / float from |]

              let out = Sound.resample 700 400 (torch.tensor x) |> Check.get
              Expect.equal out.shape [| 18L |] "length"
              same "samples" close out (torch.tensor [| for j in 0..17 -> at j |]))
          test "rates that share nothing are refused before memory is asked for" (fun () ->
              match Sound.resample 44101 44087 (torch.zeros 100L) with
              | Error [ Fault.Contradiction(what, _) ] -> Expect.stringContains what "44101" "the rate"
              | other -> failtest $"%A{other}")
          test "cut, filled and laid out" (fun () ->
              let recording = { Rate = 8000; Samples = Array.create 100 0.5f }
              let input = { plainSound with Rate = 8000; Seconds = Some 0.02 }
              let prepared input = Sound.prepare None input recording |> Check.get
              let samples, share = prepared input
              Expect.equal samples.shape [| 1L; 160L |] "length"
              near "sum" single (item (samples.sum ())) 50.0
              near "its own share" tight share (100.0 / 160.0)
              Expect.equal (fst (prepared { input with Seconds = Some 0.01 })).shape [| 1L; 80L |] "cut"
              let shape (m: MelInput) = (fst (prepared { input with Mel = Some m })).shape
              Expect.equal (shape plainMel) [| 1L; 4L; 33L |] "mels × frames"
              Expect.equal (shape { plainMel with FramesFirst = true }) [| 1L; 33L; 4L |] "frames × mels"
              Expect.equal (shape { plainMel with Channel = true }) [| 1L; 1L; 4L; 33L |] "a channel"
              Expect.equal (shape { plainMel with Frames = Some 32 }) [| 1L; 4L; 32L |] "the first frames"

              let short = { input with Seconds = Some 0.001; Mel = Some plainMel }
              Expect.isTrue (Sound.check (described (Input.Audio short)) short).IsError "too short for a frame"
              Expect.equal (prepared { input with Seconds = None } |> fst).shape [| 1L; 100L |] "its own length"
              let least = { input with Seconds = None; Least = 0.02 }
              Expect.equal (prepared least |> fst).shape [| 1L; 160L |] "at least"
              let again, _ = prepared { input with Seconds = Some 0.03; Repeat = true }
              near "twice, then silence" single (item (again.sum ())) 100.0
              let loud, _ = prepared { input with Peak = Some 0.25; Gain = 8.0 }
              near "scaled, then multiplied" single (item (loud.max ())) 2.0
              let around, _ = prepared { input with Seconds = None; Around = 0.01 }
              Expect.equal around.shape [| 1L; 260L |] "silence on both sides"
              near "at the begin" tight (item (around.narrow(1L, 0L, 80L).abs().sum())) 0.0)
          test "silence at both ends is cut off, and silence within stays" (fun () ->
              let part (level: float32) n = Array.create n level
              let x = Array.concat [ part 0f 4000; part 0.5f 1000; part 0f 2000; part 0.5f 1000; part 0f 4000 ]
              let cut = Sound.trim 8000 0.02 (torch.tensor x)
              // A loud sample is heard for 12.5 ms to both sides, 100 samples.
              Expect.isTrue (cut.shape[0] >= 4000L && cut.shape[0] <= 4200L) $"{cut.shape[0]} samples"
              near "nothing loud is lost" single (item (cut.sum ())) 1000.0
              Expect.equal (Sound.trim 8000 0.02 (torch.zeros 50L)).shape [| 50L |] "silent throughout")
          test "windows, by their definition, of samples and of frames either way" (fun () ->
              let x = [| for i in 0..99 -> float32 i |]
              let recording = { Rate = 8000; Samples = x }

              let input =
                  { plainSound with
                      Windows = Some { Length = 30; Hop = 20; Parts = 1 } }

              let rows, _ = Sound.prepare None input recording |> Check.get
              Expect.equal rows.shape [| 4L; 30L |] "as many as fit"

              for w in 0..3 do
                  identical $"window {w}" (rows.select (0L, int64 w)) (torch.tensor x[20 * w .. 20 * w + 29])

              // A model before that makes 10 frames of 10 numbers.
              let frames (samples: torch.Tensor) = samples.reshape (1L, 1L, 10L, 10L)

              let laid, _ =
                  Sound.prepare
                      (Some frames)
                      { input with
                          Windows = Some { Length = 4; Hop = 3; Parts = 1 } }
                      recording
                  |> Check.get

              Expect.equal laid.shape [| 3L; 4L; 10L |] "windows of frames"
              identical "the last" (laid.select (0L, 2L)) (torch.tensor(x).reshape(10L, 10L).narrow(0L, 6L, 4L))

              match
                  Sound.prepare
                      (Some frames)
                      { input with
                          Windows = Some { Length = 11; Hop = 1; Parts = 1 } }
                      recording
              with
              | Error [ Fault.Contradiction(what, instead) ] ->
                  Expect.stringContains what "10 frames, fewer than the 11" "what"
                  Expect.stringContains instead "'shortest'" "instead"
              | other -> failtest $"%A{other}"

              let mel = { plainMel with FramesFirst = false }
              let whole, _ = Sound.prepare None { plainSound with Mel = Some mel } recording |> Check.get

              let parts, _ =
                  Sound.prepare
                      None
                      { plainSound with
                          Mel = Some mel
                          Windows = Some { Length = 5; Hop = 2; Parts = 1 } }
                      recording
                  |> Check.get

              identical "mels before frames" (parts.select (0L, 1L)) (whole.select(0L, 0L).narrow(1L, 2L, 5L)))
          test "Whisper's range: nothing is more than so much below the loudest" (fun () ->
              let samples = torch.tensor [| for i in 0..799 -> if i < 400 then sin (float32 i) else 0f |]
              let all = Sound.logMel 8000 { plainMel with Log = "log10" } samples
              let ranged = Sound.logMel 8000 { plainMel with Log = "log10"; Range = Some 2.0 } samples
              let least = item (all.max ()) - 2.0
              Expect.isLessThan (item (all.min ())) (least - 1.0) "there is something to raise"
              same "raised" single ranged (all.clamp_min (least.AsScalar()))) ]

let private compressed =
    /// A page of an Ogg stream: packets of less than 255 bytes each.
    let page (flags: byte) (granule: int64) (number: int) (packets: byte[] list) =
        let head =
            Array.concat
                [ Encoding.ASCII.GetBytes "OggS"
                  [| 0uy; flags |]
                  BitConverter.GetBytes granule
                  BitConverter.GetBytes 7
                  BitConverter.GetBytes number
                  BitConverter.GetBytes 0
                  [| byte packets.Length |]
                  [| for p in packets -> byte p.Length |] ]

        let all = Array.concat (head :: packets)

        let crc =
            (0u, all)
            ||> Array.fold (fun crc b ->
                (crc ^^^ (uint32 b <<< 24), seq { 1..8 })
                ||> Seq.fold (fun c _ -> if c &&& 0x80000000u <> 0u then (c <<< 1) ^^^ 0x04c11db7u else c <<< 1))

        Array.blit (BitConverter.GetBytes crc) 0 all 22 4
        all

    let opus (path: string) (samples: float32[]) =
        use encoder = Concentus.OpusCodecFactory.CreateEncoder(48000, 1, Concentus.Enums.OpusApplication.OPUS_APPLICATION_AUDIO)
        encoder.Bitrate <- 64000
        let buffer: byte[] = Array.zeroCreate 4000

        let packets =
            [ for piece in Array.chunkBySize 960 samples do
                  let count = encoder.Encode(ReadOnlySpan<float32> piece, piece.Length, Span buffer, buffer.Length)
                  Array.truncate count buffer ]

        let head =
            Array.concat
                [ Encoding.ASCII.GetBytes "OpusHead"
                  [| 1uy; 1uy |]
                  BitConverter.GetBytes 312us
                  BitConverter.GetBytes 48000
                  [| 0uy; 0uy; 0uy |] ]

        let tags = Array.concat [ Encoding.ASCII.GetBytes "OpusTags"; BitConverter.GetBytes 0; BitConverter.GetBytes 0 ]

        File.WriteAllBytes(
            path,
            Array.concat
                [ page 2uy 0L 0 [ head ]
                  page 0uy 0L 1 [ tags ]
                  for i, packet in List.indexed packets do
                      page (if i = packets.Length - 1 then 4uy else 0uy) (int64 (960 * (i + 1))) (i + 2) [ packet ] ]
        )

    /// Level and frequency of a tone in the middle of a recording.
    let tone (recording: Recording) =
        let n = recording.Samples.Length
        let middle = recording.Samples[n / 4 .. 3 * n / 4]
        let crossings = middle |> Array.pairwise |> Array.filter (fun (a, b) -> a < 0f && b >= 0f) |> Array.length
        let level = middle |> Array.averageBy (fun x -> float x * float x) |> sqrt
        level, float crossings * float recording.Rate / float middle.Length

    let expectTone (recording: Recording) (seconds: float) =
        let level, frequency = tone recording
        Expect.isLessThan (abs (frequency - 440.0)) 10.0 $"{frequency} Hz"
        Expect.isLessThan (abs (level - 0.5 / sqrt 2.0)) 0.03 $"a level of {level}"
        let length = float recording.Samples.Length / float recording.Rate
        Expect.isLessThan (abs (length - seconds)) 0.1 $"{length} s"

    let shipped name = Path.Combine(__SOURCE_DIRECTORY__, "cases", name)

    testList
        "compressed sound"
        [ testCase "Opus: the tone that went in, cut where it is asked" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "a.opus")
                  opus path [| for i in 0 .. 960 * 50 - 1 -> 0.5f * float32 (sin (2.0 * Math.PI * 440.0 * float i / 48000.0)) |]
                  let whole = Recordings.read 10.0 path |> Check.get
                  Expect.equal whole.Rate 48000 "rate"
                  expectTone whole 1.0
                  Expect.equal (Recordings.read 0.25 path |> Check.get).Samples.Length 12000 "cut"
                  let bytes = File.ReadAllBytes path
                  File.WriteAllBytes(path, Array.truncate 40 bytes)
                  Expect.isTrue (Recordings.read 10.0 path).IsError "a stump"))
          testCase "Vorbis and MP3: the tone that went in" (fun () ->
              for name in [ "tone.ogg"; "tone.mp3" ] do
                  let whole = Recordings.read 10.0 (shipped name) |> Check.get
                  expectTone whole 0.5
                  let part = Recordings.read 0.1 (shipped name) |> Check.get
                  Expect.equal part.Samples.Length (whole.Rate / 10) "cut"
                  Expect.equal part.Samples (Array.truncate part.Samples.Length whole.Samples) "the begin of it")
          testCase "torn and scrambled files are faults, not crashes" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "torn")

                  for name in [ "tone.ogg"; "tone.mp3" ] do
                      let bytes = File.ReadAllBytes(shipped name)
                      let random = Random 3

                      for _ in 1..60 do
                          let torn = Array.truncate (random.Next bytes.Length) bytes

                          for _ in 1..5 do
                              if torn.Length > 64 then
                                  torn[random.Next(64, torn.Length)] <- byte (random.Next 256)

                          File.WriteAllBytes(path, torn)

                          match Recordings.read 1.0 path with
                          | Ok recording -> Expect.isTrue (recording.Samples |> Array.forall Single.IsFinite) "finite"
                          | Error faults -> Expect.isNonEmpty faults "told"))
          testCase "what nothing can decode is a sentence that says what can" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "a.flac")
                  File.WriteAllText(path, "fLaC but not really")

                  match Recordings.read 1.0 path with
                  | Error [ Fault.Unreadable(at, reason) ] ->
                      Expect.equal at path "path"
                      Expect.stringContains reason "ffmpeg" "the reason"
                  | other -> failtest $"%A{other}")) ]

let tests = testList "Sound inputs" [ waves; sounds; compressed ]
