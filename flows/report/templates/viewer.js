const MODES = ["shaded", "clay", "normals", "wireframe"];
const FOV = 20 * Math.PI / 180;

const VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) in vec4 tangent;
uniform mat4 clipFromWorld;
out vec3 vNormal; out vec2 vUv; out vec4 vTangent; out vec3 vCorner;
const vec3 CORNERS[3] = vec3[3](vec3(1, 0, 0), vec3(0, 1, 0), vec3(0, 0, 1));
void main() {
  vNormal = normal; vUv = uv; vTangent = tangent;
  vCorner = CORNERS[gl_VertexID % 3];
  gl_Position = clipFromWorld * vec4(position, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 vNormal; in vec2 vUv; in vec4 vTangent; in vec3 vCorner;
uniform sampler2D colors; uniform sampler2D bumps;
uniform vec4 factor; uniform float bumpScale; uniform int mode;
uniform vec3 right; uniform vec3 up; uniform vec3 back;
out vec4 outColor;
vec3 shadingNormal() {
  vec3 n = normalize(vNormal) * (gl_FrontFacing ? 1.0 : -1.0);
  if (bumpScale <= 0.0) return n;
  vec3 t = normalize(vTangent.xyz - n * dot(n, vTangent.xyz)), b = cross(n, t) * vTangent.w;
  vec3 bump = texture(bumps, vUv).xyz * 2.0 - 1.0;
  return normalize(t * bump.x * bumpScale + b * bump.y * bumpScale + n * bump.z);
}
vec3 lit(vec3 albedo, vec3 n, float contrast) {
  // A sky that fades downward, a key light over the viewer's left shoulder and a weak one from behind the right.
  float sky = 0.5 + 0.5 * n.y;
  float key = max(dot(n, normalize(back * 0.75 + up * 0.6 - right * 0.5)), 0.0);
  float fill = max(dot(n, normalize(right * 0.9 + up * 0.2 - back * 0.3)), 0.0);
  float light = mix(1.0, 0.34 + 0.22 * sky + 0.62 * key + 0.16 * fill, contrast);
  return albedo * light;
}
vec3 srgb(vec3 c) {
  c = clamp(c, 0.0, 1.0);
  return mix(c * 12.92, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}
void main() {
  vec3 n = shadingNormal();
  vec3 seen = vec3(dot(n, right), dot(n, up), dot(n, back));
  if (mode == 0) outColor = vec4(srgb(lit(texture(colors, vUv).rgb * factor.rgb, n, 0.6)), 1);
  else if (mode == 2) outColor = vec4(seen * 0.5 + 0.5, 1);
  else {
    vec3 clay = srgb(lit(vec3(0.62, 0.60, 0.57), n, 1.0));
    vec3 edge = vCorner / max(fwidth(vCorner), vec3(1e-6));
    float line = 1.0 - smoothstep(0.4, 1.3, min(edge.x, min(edge.y, edge.z)));
    outColor = vec4(mode == 1 ? clay : mix(mix(clay, vec3(1), 0.45), vec3(0.13, 0.2, 0.3), line * 0.85), 1);
  }
}`;

/** Where all cameras of a page stand: degrees, azimuth 0 in front and growing counter-clockwise from above; zoom 1 shows all. */
class Orbit {
  constructor() { this.azimuth = 35; this.elevation = 15; this.zoom = 1; this.watchers = []; }

  move(change) {
    Object.assign(this, change);
    this.azimuth = ((this.azimuth % 360) + 360) % 360;
    this.elevation = Math.min(85, Math.max(-85, this.elevation));
    this.zoom = Math.min(6, Math.max(0.5, this.zoom));
    this.watchers.forEach((watcher) => watcher(this));
  }

  /** The camera's axes in glTF's frame (+Y up, +Z front). */
  axes() {
    const a = this.azimuth * Math.PI / 180, e = this.elevation * Math.PI / 180;
    const back = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
    const right = [Math.cos(a), 0, -Math.sin(a)];
    return { back, right, up: cross(back, right) };
  }
}

/** One model on one canvas; draws when something changed. */
class Viewer {
  /** Throws an Error that says why the model cannot be shown. */
  static async open(canvas, bytes, orbit) {
    const glb = parseGlb(bytes), parts = scenePrimitives(glb);
    for (const part of parts) {
      part.colors = await texturePicture(glb, (part.material.pbrMetallicRoughness || {}).baseColorTexture);
      part.bumps = part.tangents && await texturePicture(glb, part.material.normalTexture);
    }
    return new Viewer(canvas, parts, orbit);
  }

  constructor(canvas, parts, orbit) {
    this.canvas = canvas; this.parts = parts; this.orbit = orbit; this.mode = 0; this.frame = 0;
    const [center, radius] = boundingSphere(parts);
    this.center = center; this.radius = radius;
    this.build();
    orbit.watchers.push(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.build(); this.draw(); });
    this.draw();
  }

  get triangles() { return this.parts.reduce((sum, part) => sum + part.positions.length / 9, 0); }

  show(mode) { this.mode = MODES.indexOf(mode); this.draw(); }

  draw() { if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); }); }

  build() {
    const gl = this.canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: true });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.gl = gl;
    this.program = linked(gl);
    this.place = (name) => gl.getUniformLocation(this.program, name);
    for (const part of this.parts) {
      part.array = gl.createVertexArray();
      gl.bindVertexArray(part.array);
      attribute(gl, 0, part.positions, 3); attribute(gl, 1, part.normals, 3); attribute(gl, 2, part.uvs, 2);
      if (part.tangents) attribute(gl, 3, part.tangents, 4);
      part.colorTexture = texture(gl, part.colors, true); part.bumpTexture = texture(gl, part.bumps, false);
    }
    gl.enable(gl.DEPTH_TEST);
  }

  render() {
    const { gl, canvas, orbit } = this, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height || gl.isContextLost()) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const axes = orbit.axes();
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.uniformMatrix4fv(this.place("clipFromWorld"), false, this.clipFromWorld(axes, width / height));
    for (const name of ["right", "up", "back"]) gl.uniform3fv(this.place(name), axes[name]);
    gl.uniform1i(this.place("mode"), this.mode);
    gl.uniform1i(this.place("colors"), 0); gl.uniform1i(this.place("bumps"), 1);
    for (const part of this.parts) {
      const normalTexture = part.material.normalTexture, surface = part.material.pbrMetallicRoughness || {};
      gl.uniform4fv(this.place("factor"), surface.baseColorFactor || [1, 1, 1, 1]);
      gl.uniform1f(this.place("bumpScale"), part.bumps ? normalTexture.scale ?? 1 : 0);
      gl.activeTexture(gl.TEXTURE0); gl.bindTexture(gl.TEXTURE_2D, part.colorTexture);
      gl.activeTexture(gl.TEXTURE1); gl.bindTexture(gl.TEXTURE_2D, part.bumpTexture);
      gl.bindVertexArray(part.array);
      gl.drawArrays(gl.TRIANGLES, 0, part.positions.length / 3);
    }
  }

  clipFromWorld({ right, up, back }, aspect) {
    // The sphere around the model fills the narrower side.
    const f = 1 / Math.tan(FOV / 2), fit = Math.min(1, aspect);
    const distance = this.radius * 1.12 / Math.sin(Math.atan(fit / f)) / this.orbit.zoom;
    const eye = this.center.map((c, k) => c + back[k] * distance);
    const near = Math.max(distance - this.radius * 1.5, distance / 100), far = distance + this.radius * 1.5;
    const view = [
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -dot(right, eye), -dot(up, eye), -dot(back, eye), 1,
    ];
    const clip = [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0];
    return multiply(clip, view);
  }
}

/** Centre and radius of a sphere around the middle of the parts' box. */
function boundingSphere(parts) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  const each = (visit) => parts.forEach(({ positions }) => { for (let k = 0; k < positions.length; k += 3) visit(positions, k); });
  each((p, k) => { for (let i = 0; i < 3; i++) { low[i] = Math.min(low[i], p[k + i]); high[i] = Math.max(high[i], p[k + i]); } });
  const center = low.map((value, i) => (value + high[i]) / 2);
  let square = 0;
  each((p, k) => { square = Math.max(square, (p[k] - center[0]) ** 2 + (p[k + 1] - center[1]) ** 2 + (p[k + 2] - center[2]) ** 2); });
  return [center, Math.sqrt(square) || 1];
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`the shaders do not build: ${logs.concat(gl.getProgramInfoLog(program)).join(" ")}`);
  }
  return program;
}

function attribute(gl, location, values, width) {
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(location);
  gl.vertexAttribPointer(location, width, gl.FLOAT, false, 0, 0);
}

/** A mipmapped texture of a picture, or one white texel. */
function texture(gl, picture, isColor) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  const stored = isColor ? gl.SRGB8_ALPHA8 : gl.RGBA8;
  if (picture) gl.texImage2D(gl.TEXTURE_2D, 0, stored, gl.RGBA, gl.UNSIGNED_BYTE, picture);
  else gl.texImage2D(gl.TEXTURE_2D, 0, stored, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  const sharper = gl.getExtension("EXT_texture_filter_anisotropic");
  if (sharper) gl.texParameterf(gl.TEXTURE_2D, sharper.TEXTURE_MAX_ANISOTROPY_EXT, 4);
  return made;
}
